// Package reconcile holds an audit log against AWS CloudTrail: who is behind
// each event of the trail, and which events the log does not explain. It is for
// those who ask whether somebody else has a laptop's keys.
//
// # What is joined
//
// CloudTrail's events bear the access key id that signed them. Where that is a
// session's that the log has, those to whom the log has it handed are behind
// the event: one process, or several candidates, of whom only those count who
// had it by then and whose lease had not ended. Where it is a session that the
// trail itself shows being made, with a session of the log's, the same holds.
// Where there is none, as in some events, or AWS works with credentials of its
// own in the session's name (forward access sessions, the console), the role,
// the session's name and when it was made say which session it is. A session of
// another role whose making the files do not show is told by the source identity
// that it has from one of the broker's, if those were given one.
//
// Calls that make sessions are the broker's if the trail's request id, or the
// access key that STS gave, is in the log. So are those of its way through a
// chain of roles, whose sessions nobody is handed, and those that STS refused. A
// session that STS made and whose answer the broker never had (a request in the
// log without outcome, or a failed one) is told apart: by its name, by its time
// being that of the request, and by a user agent that is no other program's. Of
// other calls with a long-term key the broker makes a few, most without an
// entry: GetCallerIdentity, what IAM tells of the user, and for a rotation the
// changes of its keys. These are taken for the broker's where they come under
// its name (the user agent "gatepass/…"), from where its proven calls come, and
// a rotation's within minutes of an entry key.rotating. Everything else that is
// signed with the key is not.
//
// # Time
//
// CloudTrail delivers events 5 to 15 minutes late, in any order and some twice;
// files are read to the end before anything is judged. Events bear the second
// in which AWS answered, by AWS's clock. How far the laptop's is from it is
// measured for each session: STS answered between session.requested and
// session.issued. Elsewhere what all sessions show is assumed, and without any
// 5 minutes: AWS refuses signatures that are further off.
//
// # Places and programs
//
// A session that leaves the laptop keeps its access key. So an event whose
// signer is known is still held against where this laptop is: the addresses
// from which the broker's own proven calls came, at any time in the files (of
// IPv6, the /64). An event from elsewhere is not explained. Neither is one whose
// user agent names an operating system that no other session's events name; for
// agents that name none, the program. Events that AWS calls for or in the
// console, and URLs that were signed for others to use, are excepted. Where the
// files have no proven call, or but one session, there is nothing to compare
// with. The user agent is what a program says of itself: a thief who knows what
// to say can say it.
//
// # What cannot be told
//
// A process is known by its hand-out; who used the session after, on the same
// laptop, is not. Data events (S3 objects, Lambda invocations) are in a trail
// only where it was told to log them. With the files of one account, what a
// stolen key did in another is not seen, or seen as an account's and no user's.
// Whoever uses a stolen key from the laptop's own address under the broker's
// name for what the broker does without an entry, or in the second of one of
// its failing calls, is not told from it. The trail itself is taken as it is:
// whether its files are CloudTrail's, "aws cloudtrail validate-logs" says.
package reconcile
