package forward

// A numbering tells which numbers of entries can be believed, as they come: the
// one that is expected, and one that follows the one before. Any other may be
// damaged, and where it is too high, what comes after it is not old.
type numbering struct {
	next     int64 // the number that is expected
	last     int64 // the one before, -1 for none
	unread   int64 // lines without a number since that
	doubtful int64 // lines since the last number that was believed
}

func newNumbering(next, last int64) numbering { return numbering{next: next, last: last} }

// none takes a line without a number.
func (n *numbering) none() {
	n.unread++
	n.doubtful++
}

// A number is what can be told of an entry's.
type number struct {
	follows bool  // the one before
	sure    bool  // it can be believed
	missing int64 // so many entries are not there before it, as far as can be known
}

// take takes the number of an entry.
func (n *numbering) take(seq int64) (found number) {
	found.follows = seq > n.last && seq-n.last-1 <= n.unread
	found.sure = found.follows || seq >= n.next && seq-n.next <= n.doubtful
	n.last, n.unread = seq, 0
	if found.sure {
		n.next, n.doubtful = seq+1, 0
	} else {
		found.missing = max(0, seq-n.next-n.doubtful)
		n.doubtful++
	}
	return found
}
