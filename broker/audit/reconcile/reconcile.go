package reconcile

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// Options say what is held against what.
type Options struct {
	LogDir string
	// LogTo bounds what is read of the log: up to, but not with, this number; 0
	// for all. What was not verified need not count.
	LogTo int64
	Files []string // and directories, as [Files] takes them

	// Since and Until bound the events that are judged. The files are read
	// whole: what came before says whose a session is.
	Since, Until time.Time

	All       bool           // find also what others did
	Addresses []netip.Prefix // that are this laptop's, beside those that the broker calls from
	Agents    []string       // patterns of user agents that are in order, as [audit.Match] takes them
}

// A Summary counts what was found.
type Summary struct {
	Files      int   `json:"files"`
	Records    int64 `json:"records"`
	Duplicates int64 `json:"duplicates"`
	Foreign    int64 `json:"foreign"` // of other principals
	Outside    int64 `json:"outside"` // of Since and Until

	Explained   int64          `json:"explained"`
	Unexplained int64          `json:"unexplained"`
	Kinds       map[Kind]int64 `json:"kinds"` // but foreign

	First time.Time `json:"first,omitzero"` // of all events in the files
	Last  time.Time `json:"last,omitzero"`

	// Addresses are the networks from which the broker called STS; without any,
	// addresses and user agents were not compared.
	Addresses []string `json:"addresses"`
	// Missing counts sessions that the broker got while the files last whose
	// making they do not tell: files of an account, a region or a day are not
	// here, or the trail was off.
	Missing int64 `json:"missing"`
	// Incomplete tells what was not read. Then nothing is proved.
	Incomplete []FileError `json:"incomplete,omitempty"`

	FirstMissing string `json:"first_missing,omitempty"` // one of those sessions
}

// Run reads the log and the files and calls found with what it finds, in the
// order of the files. Each event comes once.
//
// Files are read twice, an event at a time: what is kept of one is some 50
// bytes, to know it again. What cannot be read of them is in the summary, and the
// error a [broker.CodeData] that says so: what was found until then is right,
// and not all.
//
// A line of the log that is no entry is a [broker.CodeData] too: it may be the
// one that explains. Then, as where no files are found ([broker.CodeNotFound]), a
// pattern is malformed, or the log cannot be read (see [audit.Entries]), nothing
// is found and the summary is empty. What found returns ends the run, and is
// returned.
func Run(ctx context.Context, opts Options, found func(Finding) error) (Summary, error) {
	files, err := Files(opts.Files)
	if err != nil {
		return Summary{}, broker.Errorf(broker.CodeNotFound, "find CloudTrail's files: %w", err)
	}
	for _, pattern := range opts.Agents {
		if _, err := audit.Match(pattern, ""); err != nil {
			return Summary{}, err
		}
	}
	b, err := readBook(ctx, opts.LogDir, audit.Query{To: opts.LogTo})
	if err != nil {
		return Summary{}, err
	}
	f := newFacts(b)
	f.vouched, f.agents = opts.Addresses, opts.Agents
	t := &trail{files: files}
	if err := t.each(ctx, f.learn); err != nil {
		return Summary{}, err
	}
	bad := t.bad
	f.conclude()
	if err := b.readRecipients(ctx, opts.LogDir); err != nil {
		return Summary{}, err
	}

	sum := Summary{Files: len(files), Kinds: map[Kind]int64{}, Addresses: []string{}}
	seen := map[[16]byte]struct{}{}
	err = t.each(ctx, func(e *Event) error {
		sum.Records++
		id := e.identity()
		if _, again := seen[id]; again {
			sum.Duplicates++
			return nil
		}
		seen[id] = struct{}{}
		if !opts.Since.IsZero() && e.Time.Before(opts.Since) || !opts.Until.IsZero() && !e.Time.Before(opts.Until) {
			sum.Outside++
			return nil
		}
		v := f.judge(e)
		switch {
		case v.Kind == KindForeign:
			sum.Foreign++
			if !opts.All {
				return nil
			}
		case v.Explains:
			sum.Explained++
			sum.Kinds[v.Kind]++
		default:
			sum.Unexplained++
			sum.Kinds[v.Kind]++
		}
		return found(v)
	})
	if err != nil {
		return sum, err
	}
	f.summarise(&sum)
	sum.Incomplete = append(bad, slices.DeleteFunc(t.bad, func(e FileError) bool { return slices.Contains(bad, e) })...)
	if len(sum.Incomplete) > 0 {
		return sum, broker.Errorf(broker.CodeData, "%d of %d of CloudTrail's files cannot be read to the end: %w", len(sum.Incomplete), sum.Files, sum.Incomplete[0]).
			WithHint("what was found is not all: get the file again, or leave it out")
	}
	return sum, nil
}

// identity tells events apart. Those of one id that do not say the same are not
// taken for one.
func (e *Event) identity() (id [16]byte) {
	b := make([]byte, 0, 512)
	for _, field := range [...]string{
		e.ID, e.Source, e.Name, e.Account, e.Address, e.Agent, e.ErrorCode, e.RequestID, e.Identity.ARN, e.Identity.PrincipalID,
		e.Identity.AccessKeyID, e.Identity.InvokedBy, e.SessionName, e.Issued,
	} {
		b = binary.AppendUvarint(b, uint64(len(field)))
		b = append(b, field...)
	}
	sum := sha256.Sum256(binary.AppendVarint(b, e.Time.Unix()))
	copy(id[:], sum[:])
	return id
}

// edge is how long after an event CloudTrail may deliver it, mostly: so near to
// the ends of the files what is missing says nothing.
const edge = 15 * time.Minute

func (f *facts) summarise(sum *Summary) {
	for a := range f.addresses {
		sum.Addresses = append(sum.Addresses, a)
	}
	slices.Sort(sum.Addresses)
	if f.first == 0 {
		return
	}
	sum.First, sum.Last = time.Unix(f.first, 0).UTC(), time.Unix(f.last, 0).UTC()
	for _, s := range f.byID {
		// A session of an MFA proof that is served as it is was made with the
		// proof.
		if s.Outcome != outcomeIssued || !s.minted.IsZero() || f.proof(s) ||
			s.Issued.Before(sum.First.Add(edge)) || s.Issued.After(sum.Last.Add(-edge)) {
			continue
		}
		sum.Missing++
		if sum.FirstMissing == "" || s.ID < sum.FirstMissing {
			sum.FirstMissing = s.ID
		}
	}
}

// proof reports whether another session has s's access key.
func (f *facts) proof(s *Session) bool { return f.byKey[s.AccessKeyID][0] != s }
