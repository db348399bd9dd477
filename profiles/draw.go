package profiles

import "strings"

// Draw shows on one line how the profile asked for leads to where its chain
// begins, and marks there what is missing: "prod → hub → ✗ key base". The
// name is escaped and cut where it must be.
func (c *Chain) Draw(what, missing string) string {
	return drawn(c.Way, what+nameInDrawing(missing))
}

// drawn shows the profiles of way, of a long one both ends, and where it
// breaks.
func drawn(way []string, broken string) string {
	const ends = 4 // shown on either side
	var b strings.Builder
	for i, name := range way {
		if len(way) > 2*ends {
			if i == ends {
				b.WriteString("… → ")
			}
			if i >= ends && i < len(way)-ends {
				continue
			}
		}
		b.WriteString(nameInDrawing(name) + " → ")
	}
	return b.String() + "✗ " + broken
}

// nameInDrawing quotes a name that is not one plain word.
func nameInDrawing(name string) string {
	plain := name != "" && len(name) <= 64 && consistsOf(name, func(c byte) bool { return isWord(c) || strings.IndexByte(".@%+:/-", c) >= 0 })
	if plain {
		return name
	}
	return quote(name)
}

// noProfile says that s of p names a profile that is not there; way leads
// to p, and also what else the name may be.
func (r *resolver) noProfile(p *profile, s setting, way []string, also string) error {
	hint := commentHint(s.value)
	if near := nearest(s.value, r.names); hint == "" && len(near) > 0 {
		hint = "; did you mean " + quote(near[0]) + "?"
	} else if hint == "" {
		hint = also
	}
	return wrong(p, s, "there is no profile %s (%s)%s", quote(s.value), drawn(way, nameInDrawing(s.value)), hint)
}

// leadsBack says that s of p names a profile that way, which leads to p, has
// passed.
func leadsBack(p *profile, s setting, way []string, name string) error {
	return wrong(p, s, "leads back to profile %s (%s)", quote(name), drawn(way, nameInDrawing(name)))
}
