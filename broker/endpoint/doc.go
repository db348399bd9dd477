// Package endpoint serves a lease's sessions to AWS SDKs over loopback HTTP,
// in the two ways that every SDK knows: as a container's credentials endpoint
// and as the instance metadata service, version 2 (IMDSv2). Each lease has a
// port of its own on 127.0.0.1 and serves one session there, that of its first
// profile. The gate ([Config].Credentials) decides and records each hand-out.
//
// # Container
//
// These variables lead an SDK here:
//
//	AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:PORT/
//	AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=ROOM/token
//
// The file, mode 0600, holds a token of 256 random bits without a newline.
// SDKs read it for each request and send it as it is in Authorization; those
// from before 2024 do not know the variable, and are told so. GET / is all
// there is:
//
//	{"AccessKeyId":…,"SecretAccessKey":…,"Token":…,"Expiration":…,"AccountId":…}
//
// # IMDS
//
// These variables lead an SDK here:
//
//	AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:PORT/
//	AWS_EC2_METADATA_V1_DISABLED=true
//
// It answers
//
//	PUT /latest/api/token                                  a token; X-aws-ec2-metadata-token-ttl-seconds, 1 to 21600, is echoed
//	GET /latest/meta-data/iam/security-credentials/        the role's name
//	GET /latest/meta-data/iam/security-credentials/ROLE    {"Code":"Success","LastUpdated":…,"Type":"AWS-HMAC","AccessKeyId":…,…}
//	GET /latest/meta-data/iam/info                         {"Code":"Success","LastUpdated":…,"InstanceProfileArn":…,"InstanceProfileId":…}
//	GET /latest/meta-data/placement/region                 the region, if the lease has one
//	GET /latest/dynamic/instance-identity/document         {"accountId":…,"region":…,"version":"2017-09-30"}
//
// each GET with a token of this port in X-aws-ec2-metadata-token. Version 1 of
// the protocol, which asks without, is not spoken.
//
// # What is checked, in this order
//
// A connection, when it is accepted:
//
//  1. It comes from this machine's loopback.
//  2. On Linux, the kernel says (sock_diag(7), else /proc/net/tcp) that the
//     socket at its other end was made by our own user. Another user's
//     requests, root's too, get 403 whatever they hold; where the kernel does
//     not tell, nobody is served. On other systems this is not checked: there
//     the container's token alone keeps other users out, and nothing keeps
//     them off IMDS.
//
// Then each request, which must have come within 5 s. net/http has refused by
// then what it cannot read, what has no Host or two, and headers of more than
// 16 KiB.
//
//  3. Container: Authorization is there once and is the lease's token, compared
//     in constant time: else 401. Whoever has no token learns nothing further.
//  4. It has nothing that browsers and proxies add: Origin, Referer, Cookie,
//     Sec-*, X-Forwarded-*, X-Real-Ip, Forwarded, Via, Proxy-*: else 403.
//  5. Host is 127.0.0.1:PORT or localhost:PORT: else 403. A page on the web can
//     make its own name mean this machine, but not change what the browser
//     sends here.
//  6. IMDS: PUT /latest/api/token with one good lifetime and no body gets a
//     token. All else needs a token that was made for this port and has not
//     expired: else 401. Every refusal of that PUT from 4 on is 400, since SDKs
//     go on without a token after 403, 404 and 405.
//  7. The lease has not ended: else 403 with the sentence given to [Server.End].
//  8. The target is one of the paths above, to the byte: no query, no escapes,
//     no dots, no host: else 404.
//  9. The method is the path's: else 405.
//  10. There is no body: else 400.
//
// Then, for credentials, the process that asks is looked for, the gate is asked
// on its behalf, and 7 is checked again before the answer leaves.
//
// The process is the one that holds the other end of the connection. It is
// looked for in the lease's process tree, then in all of our user's processes,
// with bounded work; what is found is remembered for the connection and looked
// at again after a second. Where none is found, and on other systems than
// Linux, it is the lease's root with Resolved false. The gate may refuse that:
// IMDS has no secret, so the process is all that tells the inside of a lease
// from the outside.
//
// # Answers
//
// Every answer says Cache-Control: no-store; there are no redirects and no
// CORS headers. Refusals and failures are JSON, {"Code":…,"Message":…} with
// the codes of package broker. Those of the gate come under 403 where asking
// again does not help, and under 429, 500 or 503 where it may. The SDK for Go
// shows the message of a container's endpoint, botocore the whole body, and the
// one for JavaScript has both in its error; of IMDS all show the status at most.
// What a client sent is never repeated, here or in the daemon's log, for it may
// be a token. A refusal ends its connection.
//
// A refusal of the gate is recorded by the gate. Of those before it, the denied
// ones are: of other users; after the end; without the right token, and from
// what looks like a browser. Anybody on this machine can bring them about, so
// of each of the three kinds the first in a minute is recorded, for a lease,
// with how many there were since the one before: whoever tries all day adds
// some thousand entries. Mistakes (404, 405, 400) go to the daemon's own log.
//
// A lease has 128 connections at once, 4 of them other users', and all leases
// together 1,024; further ones wait, and other users' are closed.
//
// # What this does not do
//
// Processes of our user can read the token's file, or ask the daemon directly;
// root can read everything. What the container endpoint has handed out works at
// AWS until it expires. After the daemon has ended, another program can listen
// on the port: it gets tokens that no longer open anything, and can answer with
// credentials of its own.
package endpoint
