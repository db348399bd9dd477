// Package audit is the tamper-evident log of gatepass: every hand-out of
// credentials, and all that leads to one or refuses one, is an entry in it
// before anything leaves. [Log] writes it, [Verify] holds it against its
// signatures and against checkpoints that were kept elsewhere, [Entries] reads
// it, [Prove] takes one entry out of it in a form that [CheckProof] accepts
// with the public key alone.
//
// What follows is the format to the byte, enough to write another verifier.
//
// # The directory
//
// A log is a directory of mode 0700 with these files of mode 0600:
//
//	000001.jsonl …  the segments: the entries; 000001.jsonl.zst where a
//	                segment is compressed
//	checkpoints     signed heads of the tree over the entries
//	pruned          the edge of the tree over entries that were removed
//	hashes          the tree's hashes; derived, and never trusted
//	anchored        the checkpoint that last left this machine, and when
//	lock            held (flock) by the daemon that writes; its first line is
//	                the path of the socket it listens on, its second an id
//	                of this run of the daemon
//
// Others may lie there and are not part of the log: *.tmp is an unfinished
// file, and NNNNNN.cut-SEQ what was cut out of a segment after a crash, where
// that was more than an unfinished line.
//
// # Segments and entries
//
// Segments are numbered from 1 without gaps: six decimal digits with leading
// zeros (more digits where six do not do) and ".jsonl". The log's bytes are
// the segments' in that order. Each line, which a newline (0x0A) ends, is an
// entry; no line spans segments, and no byte is outside an entry. A segment
// is at most 64 MiB, may be empty, and is never rewritten.
//
// A segment that is not written any more and is covered by a checkpoint may be
// compressed whole: then its bytes are in a file whose name has ".zst" after
// the segment's. Where both files are there, the plain one counts and the other
// is left aside. Segments are called by their plain names wherever they are
// spoken of, and lines are counted as they are in the plain file.
//
// A compressed file is in Zstandard's seekable format, which any decoder of
// RFC 8878 reads from its beginning to its end:
// https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md
// It is a sequence of at most 4,096 frames and a skippable frame:
//
//	frame …         each holds whole lines, 1 to 262,144 bytes of them, and
//	                takes at most 263,168 bytes; it has a Frame_Content_Size
//	                and a checksum, no dictionary, and a window of at most
//	                262,144 bytes
//	table           5E 2A 4D 18; the number of bytes that follow, 8n+9; for
//	                each of the n frames its size in the file and that of its
//	                lines; n; the byte 00; B1 EA 92 8F
//
// Numbers in the table are unsigned, in 4 bytes, the lowest first. The frames
// fill the file up to the table exactly, and a reader decodes no frame that is
// not as its table and its header say. So it needs memory for two frames and
// the table, whatever the file holds, and can begin at any frame.
//
// An entry is a JSON object (RFC 8259) of at most 16,384 bytes without blanks
// between its tokens, and begins
//
//	{"seq":N,"time":"2006-01-02T15:04:05.000000Z","event":"…"
//
// with exactly these bytes but for N, the digits of the time and the name of
// the event. N is the entry's number in decimal: 0 for the log's first, and
// one more for each that follows, across segments. The time is UTC in
// microseconds, as the daemon's clock told it. Where the clock was set back,
// times go back: N, not the time, is the order. No further field repeats one of
// these three to say something else.
//
// The fields come in this order, and absent ones are left out:
//
//	seq time event outcome profile account role_arn
//	key{name access_key_id user_arn}
//	session{id access_key_id name source_identity expires sts_request_id}
//	lease
//	caller{uid user pid program exe command cwd tty via resolved
//	ancestors[{pid exe command}…]}
//	groups[…] reason decision error{code message} cut[…]
//
// uid, user, pid, program and the like are as [broker.Event] and
// [broker.Caller] document them. A reader skips fields it does not know.
//
// In strings, the quotation mark and the backslash are escaped as \" and \\,
// newline and tab as \n and \t, and as \uXXXX (lower case, two of them beyond
// U+FFFF) everything that Unicode does not call a letter, mark, number,
// punctuation, symbol or the ASCII space. So control, bidirectional,
// zero-width and line-separating characters never stand for themselves, and
// the file can be shown on a terminal. A byte that is not UTF-8 is \ufffd.
//
// A string takes at most 1,024 bytes between its quotes; groups has at most
// 16 elements and ancestors 16. In an entry that would still be over 16,384
// bytes, strings take at most 256, and those of ancestors and groups 128. A
// string that was shortened ends in "…" (U+2026), and cut, the entry's last
// field, lists the paths of all that was shortened: "caller.command",
// "caller.ancestors" for elements left out, "caller.ancestors.exe" for a
// string in one of them.
//
// # The tree
//
// The entries are the leaves of a Merkle tree as in RFC 6962, section 2.1,
// with SHA-256. Leaf N is the entry N, its bytes without the newline:
//
//	leaf hash      SHA-256(0x00 ‖ entry)
//	node hash      SHA-256(0x01 ‖ left ‖ right)
//	head of n > 1  node hash of the head of the first k leaves and the head
//	               of the others, k the largest power of two below n
//
// # Checkpoints
//
// The file checkpoints is a sequence of C2SP signed notes that are
// tlog-checkpoints (https://c2sp.org/signed-note,
// https://c2sp.org/tlog-checkpoint), each followed by an empty line:
//
//	gatepass-audit/alice@laptop/x2kq7r5d
//	1042
//	CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//
//	— gatepass-audit/alice@laptop/x2kq7r5d Az3grlgtzPICa5OS8npVmf1Myq/5…
//
// The lines are the origin, which is the name of the key; the number n of
// leaves, in decimal; the head of the first n leaves, in base64; an empty
// line; and a signature: "— " (U+2014, space), the key's name, a space, and
// the base64 of four bytes of key hash and the Ed25519 signature of the first
// three lines with their newlines. More signature lines, of witnesses, may
// follow. The key hash is the first four bytes of
// SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key), and the verifier key to pin is
// written name+hash+base64(0x01 ‖ public key), the hash in hexadecimal.
//
// n never decreases. A checkpoint covers only entries that were synced to
// disk before it was signed, and is itself synced before anybody is told of
// it. One is written when there is something new, at most every 10 seconds,
// and when the daemon stops. While the key cannot be had, there are none.
//
// What follows the last checkpoint and is the beginning of another one of the
// same origin is being written, or was when the daemon was killed: it counts
// for nothing, and the next one is written in its place. The same goes, when the
// daemon starts, for one with zeros in it, as a power cut may leave.
//
// # A new key
//
// A new key makes a new log in the sense of tlog-checkpoint, with an origin
// of its own, whose first leaves are all those of the old log: entries and
// numbers go on. Before its first checkpoint comes an entry with the event
// log.linked and the reason
//
//	key NAME+HASH follows NAME+HASH at SIZE HEAD
//
// with the new key, the old key, and the size and head of the old key's last
// checkpoint. Checkpoints of other keys than the one to trust are accepted
// when their head is right and an entry that is signed by the trusted key
// names their last one in this way.
//
// # Proofs
//
// A proof is a C2SP tlog-proof (https://c2sp.org/tlog-proof), by custom in a
// file *.tlog-proof: that an entry is in a log, for somebody who has neither the
// log nor reason to trust its owner, but the verifier key.
//
//	c2sp.org/tlog-proof@v1
//	extra eyJzZXEiOjQxLCJ0aW1lIjoiMjAyNi0xMS0wM1QxMDowMDowMC4wMDAwMDBa…
//	index 41
//	gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
//	…
//
//	gatepass-audit/alice@laptop/x2kq7r5d
//	1042
//	CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//
//	— gatepass-audit/alice@laptop/x2kq7r5d Az3grlgtzPICa5OS8npVmf1Myq/5…
//
// The lines are the name of the format; "extra " and the base64 of the entry;
// "index " and its number, in decimal; in base64, one a line, the hashes of its
// audit path (RFC 6962, section 2.1.1), from the leaf's sibling to the child of
// the root; an empty line; and a checkpoint to its end. Base64 is standard, with
// padding, and there is one way to write each value: a proof that is another
// sequence of bytes is another proof, or none. A proof is at most 65,536 bytes.
//
// The extra data of a tlog-proof is not authenticated by itself. Here it is,
// since the leaf hash is computed from it: SHA-256(0x00 ‖ entry). It counts
// once the checkpoint is signed by the key to trust and has its name as the
// origin, index is less than the checkpoint's number of leaves, and the leaf
// hash leads by the path to the checkpoint's head. The entry must also be one
// as above, with index as its seq.
//
// The proof of an entry holds what the entry holds, of no other entry more than
// hashes, and the number of entries.
//
// # Anchors
//
// A checkpoint vouches for the entries that it covers wherever it is kept. Kept
// where whoever can change the log cannot change it (another machine, a
// ticket, a printout), it is an anchor: a log of which it is not a checkpoint is
// not the log that it was taken of, or not the continuation of it. [Verify]
// holds a log against any number of them: the log must have at least as many
// leaves, and the head of the first n must be the checkpoint's. An anchor signed
// by an earlier key counts where the log says that the key to trust follows it.
// Of an anchor whose entries were pruned since, only the file hashes can tell:
// it does where it leads from the anchor to the signed head.
//
// The daemon can send each new checkpoint away (Anchor in [Options]). The file
// anchored is its memory of the last one that was sent: the time, written as in
// entries, a newline, and the checkpoint. Verify holds the log against that one
// too, but it proves nothing, being beside the log.
//
// # Hashes
//
// The file hashes holds 32-byte hashes: leaf 0, leaf 1, and after each leaf
// the subtrees that it completes, smallest first (the order of
// [tlog.StoredHashIndex]). It lets the daemon start without reading the whole
// log, lets verify say which entry was changed, and has the audit paths. Where
// it does not lead to the signed head, it is computed again or left aside.
//
// # Pruning
//
// The oldest segments may be removed, one at a time and whole, with those that
// are empty before them. The numbers of entries and segments go on as they
// were: the log then begins with entry n of segment k. The file pruned has what
// the heads are computed from in the place of the leaves before n: the heads of
// the complete subtrees that the first n leaves fall into (n = 6: leaves 0 to 3
// and 4 to 5), the largest first:
//
//	81920 2026-11-23T08:40:10.123456Z
//	CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//	…
//
// The first line is n and when this was written, then comes each head in base64
// and an empty line. While a segment is being removed there are two of these:
// the one that is right has the number of the first entry that is there, and
// where neither has, it is the last. Where that entry is 0, nothing but empty
// segments before it was removed yet, and none counts.
//
// Before that, an entry with the event log.pruned says, as its reason,
//
//	kept from entry N on, after HEAD
//
// with n and the head of the first n leaves, and a checkpoint covers it. A log
// without its first entries verifies only where an entry that the trusted key
// has signed says exactly so of n and of the head that the file pruned leads
// to. So nothing else in the directory need be trusted: with other hashes the
// signed heads do not come out, and for another n there is no entry.
//
// Checkpoints of fewer than n entries are of something that is not there, and
// count for nothing where the file hashes does not prove that the head of the
// first n continues them. The log.linked entry of a key whose checkpoints are
// all of this kind may have been removed too, and is not asked for.
//
// A segment goes when all of its entries are older than Keep in [Options] and
// covered by a checkpoint, at most one in 24 hours; of s segments one in
// Keep/2s, where that is less. What counts as now is the clock, but nothing
// later than the first entry of the segment that is being written: a clock that
// was set forward removes nothing until a whole segment was written with it,
// and then one segment a day. That keeps up to one segment more than was asked
// for.
//
// Of a log that was pruned the files prove what is left of it, and that it
// followed n other entries with this head. What those said is proved by nobody
// who does not have them: a copy of the segments, with the checkpoints, does.
// That they were old when they went, only the times say that are left.
//
// # What is promised, and what cannot be caught
//
// Up to the last checkpoint everything is caught, and the first bad entry
// named: a changed byte; a line or a segment that was removed, moved, repeated,
// cut short or added; a checkpoint changed, or of another log.
//
// From the files alone these cannot be seen:
//
//   - Entries after the last checkpoint that were changed, removed from the end,
//     or added, where what is left is well-formed and numbered on. They are
//     reported as not signed; the daemon signs what it finds when it starts.
//   - An older copy of the log in its place, or the newest checkpoints removed
//     together with the entries after the one that is left, or with these left
//     as entries that are not signed.
//   - A checkpoint removed from between others, which changes nothing.
//   - Another log, signed by somebody who has the signing key: who can read the
//     keychain can write all of it anew.
//   - Another log, signed by another key, where the pinned public key was
//     replaced as well.
//
// Against an anchor, the second is caught up to the entries that it covers, and
// so are the last two. What stays: changes after the newest anchor, a machine
// whose log was wrong from the start, and requests that never reached the
// daemon. A log says what was written, not that it was true.
//
// # Writing, crashes, failures
//
// An entry is written (write) before [Log.Append] returns, so it survives the
// end of the daemon. Entries that the caller asks to be durable are synced
// (fdatasync, one for all that wait) before it returns, others within a
// second. An entry may be in the log although its Append failed; one whose
// Append succeeded is there, but for the last second before a power cut of
// those that were not durable.
//
// A line that could not be written whole is cut off again. After a failed
// sync the segment is given up: what was not known to be synced is written to
// the next segment and cut off the old one; until that has worked nothing is
// signed. What a crash leaves is mended when the log is next opened, and an
// entry log.recovered says what: a torn last line is cut; a half-made copy of
// lines in a next segment is removed, and of a whole one the lines that it was
// made of. What stays of the entries after the last checkpoint is written again
// as it is and synced: where a sync had failed, it may be in memory alone.
// Nothing that a checkpoint covers is ever mended: where it does not fit, the
// log does not open.
//
// A segment is compressed beside its place, brought to disk, read again, and
// each of its leaves compared with the tree's; only then does the new file get
// its name, and after that the plain one goes. To remove a segment, its entry
// is written and signed, then the file pruned, then the files of the segment
// are removed. Whatever is interrupted is begun again, and what a crash leaves
// verifies: both forms of a segment, two log.pruned entries for one removal, or
// an old segment that should have gone.
package audit
