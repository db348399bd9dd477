package ocsf

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// schemaSource is where the published schema lies, to be vendored anew.
var schemaSource = flag.String("schema", "", "a checkout of ocsf/ocsf-schema; rewrites testdata/ocsf.json from it")

// A schema is the part of the published one (the metaschema's files of
// https://github.com/ocsf/ocsf-schema) that entries can meet: its attributes
// as they stand there but for descriptions, and nothing that is not named in
// what is used.
type schema struct {
	Version    string               `json:"version"`
	Categories map[string]int       `json:"categories"`
	Types      map[string]dataType  `json:"types"`
	Dictionary map[string]attribute `json:"dictionary"`
	Classes    map[string]class     `json:"classes"`
	Profiles   map[string]class     `json:"profiles"`
	Objects    map[string]class     `json:"objects"`
}

type class struct {
	UID         int                        `json:"uid,omitempty"`
	Category    string                     `json:"category,omitempty"`
	Extends     string                     `json:"extends,omitempty"`
	Attributes  map[string]json.RawMessage `json:"attributes"`
	Constraints map[string][]string        `json:"constraints,omitempty"`
}

type attribute struct {
	Type        string               `json:"type,omitempty"`
	IsArray     bool                 `json:"is_array,omitempty"`
	Requirement string               `json:"requirement,omitempty"`
	Sibling     string               `json:"sibling,omitempty"`
	Enum        map[string]enumValue `json:"enum,omitempty"`
	Profile     json.RawMessage      `json:"profile,omitempty"` // null: it does not hang on one
	Deprecated  json.RawMessage      `json:"@deprecated,omitempty"`
}

type enumValue struct {
	Caption string `json:"caption"`
}

type dataType struct {
	Type   string  `json:"type,omitempty"`
	Regex  string  `json:"regex,omitempty"`
	MaxLen int     `json:"max_len,omitempty"`
	Range  []int64 `json:"range,omitempty"`
}

var (
	usedClasses = []string{"base_event", "iam/iam", "iam/authentication", "iam/authorize_session", "iam/entity_management",
		"application/application", "application/application_lifecycle", "application/api_activity"}
	usedObjects = []string{"object", "_entity", "metadata", "product", "user", "group", "session", "service", "managed_entity", "application",
		"api", "request", "network_endpoint", "endpoint", "device", "actor", "process", "process_entity", "file", "cloud", "account", "policy", "programmatic_credential"}
)

func vendored(t *testing.T) *schema {
	t.Helper()
	file := filepath.Join("testdata", "ocsf.json")
	if *schemaSource != "" {
		vendorSchema(t, *schemaSource, file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	if s.Version != Version {
		t.Fatalf("the schema is version %s, entries are told in %s", s.Version, Version)
	}
	return &s
}

// vendorSchema writes what is used of the schema in dir into file.
func vendorSchema(t *testing.T, dir, file string) {
	read := func(out any, name ...string) {
		data, err := os.ReadFile(filepath.Join(append([]string{dir}, name...)...) + ".json")
		if err == nil {
			err = json.Unmarshal(data, out)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s := schema{Categories: map[string]int{}, Dictionary: map[string]attribute{}, Classes: map[string]class{}, Profiles: map[string]class{}, Objects: map[string]class{}}
	read(&s, "version")
	named := map[string]bool{}
	take := func(into map[string]class, kind, name string) {
		var c class
		read(&c, kind, name)
		for a, raw := range c.Attributes {
			if a == "$include" {
				continue
			}
			var slim attribute
			if err := json.Unmarshal(raw, &slim); err != nil {
				t.Fatal(err)
			}
			if slim.Deprecated != nil {
				slim.Deprecated = json.RawMessage("true")
			}
			c.Attributes[a], _ = json.Marshal(slim)
			named[a] = true
			if slim.Sibling != "" {
				named[slim.Sibling] = true
			}
		}
		into[filepath.Base(name)] = c
	}
	for _, name := range usedClasses {
		take(s.Classes, "events", name)
	}
	for _, name := range usedObjects {
		take(s.Objects, "objects", name)
	}
	for _, c := range slices.Concat(slices.Collect(maps.Values(s.Classes)), slices.Collect(maps.Values(s.Objects))) {
		for _, name := range c.included() {
			take(s.Profiles, "profiles", name)
		}
	}
	var dictionary struct {
		Attributes map[string]attribute `json:"attributes"`
		Types      struct {
			Attributes map[string]dataType `json:"attributes"`
		} `json:"types"`
	}
	read(&dictionary, "dictionary")
	s.Types = dictionary.Types.Attributes
	for a := range named {
		of := dictionary.Attributes[a]
		if of.Deprecated != nil {
			of.Deprecated = json.RawMessage("true")
		}
		s.Dictionary[a] = of
	}
	var categories struct {
		Attributes map[string]struct {
			UID int `json:"uid"`
		} `json:"attributes"`
	}
	read(&categories, "categories")
	for name, c := range categories.Attributes {
		s.Categories[name] = c.UID
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// included are the names of the profiles whose attributes c takes in.
func (c class) included() []string {
	var one string
	var names []string
	raw := c.Attributes["$include"]
	if json.Unmarshal(raw, &one) == nil {
		names = []string{one}
	} else if raw != nil {
		json.Unmarshal(raw, &names)
	}
	for i, n := range names {
		names[i] = strings.TrimSuffix(strings.TrimPrefix(n, "profiles/"), ".json")
	}
	return names
}

// A shape is what a class or an object has to look like under some profiles.
type shape struct {
	attributes  map[string]attribute
	constraints map[string][]string
	category    string
	uid         int
}

// resolve merges a class or an object with what it extends, with its profiles
// and with the dictionary.
func (s *schema) resolve(all map[string]class, name string, profiles []string) (shape, error) {
	c, ok := all[name]
	if !ok {
		return shape{}, fmt.Errorf("%s is not vendored", name)
	}
	sh := shape{attributes: map[string]attribute{}, constraints: map[string][]string{}}
	if c.Extends != "" {
		var err error
		if sh, err = s.resolve(all, c.Extends, profiles); err != nil {
			return sh, err
		}
	}
	if c.Constraints != nil {
		sh.constraints = c.Constraints
	}
	if c.Category != "" {
		sh.category = c.Category
	}
	sh.uid = c.UID
	for _, p := range c.included() {
		if slices.Contains(profiles, p) {
			for a, raw := range s.Profiles[p].Attributes {
				s.merge(sh.attributes, a, raw)
			}
		}
	}
	for a, raw := range c.Attributes {
		if a == "$include" {
			continue
		}
		var own attribute
		if err := json.Unmarshal(raw, &own); err != nil {
			return sh, err
		}
		if p := strings.Trim(string(own.Profile), `"`); p != "" && p != "null" && !slices.Contains(profiles, p) {
			continue
		}
		s.merge(sh.attributes, a, raw)
	}
	return sh, nil
}

// merge lays what a class says of an attribute over what is known of it.
func (s *schema) merge(into map[string]attribute, name string, raw json.RawMessage) {
	a, ok := into[name]
	if !ok {
		a = s.Dictionary[name]
	}
	a.Enum = maps.Clone(a.Enum)
	json.Unmarshal(raw, &a)
	into[name] = a
}

// check returns what is wrong with an event: attributes that are missing,
// unknown, deprecated, of a wrong type, outside of their enumeration or not
// named where they are "other"; constraints that do not hold; and numbers that
// do not fit one another.
func (s *schema) check(event []byte) (problems []string) {
	dec := json.NewDecoder(bytes.NewReader(event))
	dec.UseNumber()
	var v map[string]any
	if err := dec.Decode(&v); err != nil {
		return []string{err.Error()}
	}
	number := func(name string) int64 {
		n, _ := v[name].(json.Number)
		i, _ := n.Int64()
		return i
	}
	uid := number("class_uid")
	var profiles []string
	if m, ok := v["metadata"].(map[string]any); ok {
		for _, p := range asList(m["profiles"]) {
			profiles = append(profiles, fmt.Sprint(p))
		}
	}
	for name := range s.Classes {
		sh, err := s.resolve(s.Classes, name, profiles)
		if err != nil {
			return []string{err.Error()}
		}
		category := s.Categories[sh.category]
		if int64(category*1000+sh.uid) != uid || sh.uid == 0 && name != "base_event" {
			continue
		}
		if number("category_uid") != int64(category) || number("type_uid") != uid*100+number("activity_id") {
			problems = append(problems, "class, category and type do not fit")
		}
		for attr, set := range map[string]string{"class_uid": strconv.FormatInt(uid, 10), "category_uid": strconv.Itoa(category), "type_uid": fmt.Sprint(v["type_uid"])} {
			a := sh.attributes[attr]
			a.Enum = map[string]enumValue{set: {}} // what a compiled schema has, computed above
			sh.attributes[attr] = a
		}
		return append(problems, s.object("", v, sh, profiles)...)
	}
	return []string{fmt.Sprintf("no class has the number %d", uid)}
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

func (s *schema) object(path string, v map[string]any, sh shape, profiles []string) (problems []string) {
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	for name, a := range sh.attributes {
		if _, ok := v[name]; !ok && a.Requirement == "required" {
			wrong("%s%s is required", path, name)
		}
	}
	for name, value := range v {
		a, ok := sh.attributes[name]
		if !ok {
			wrong("%s%s is unknown", path, name)
			continue
		}
		if a.Deprecated != nil {
			wrong("%s%s is deprecated", path, name)
		}
		values := []any{value}
		if a.IsArray {
			if values = asList(value); len(values) == 0 {
				wrong("%s%s is no list, or empty", path, name)
			}
		}
		for _, one := range values {
			problems = append(problems, s.value(path+name, one, a, profiles)...)
		}
		if n, ok := value.(json.Number); ok && a.Sibling != "" && name != "type_uid" { // in which 99 is no "other"
			said, named := v[a.Sibling]
			if n == "99" && !named {
				wrong("%s%s is other, and %s does not say what", path, name, a.Sibling)
			}
			if caption := a.Enum[string(n)].Caption; named && n != "99" && said != caption {
				wrong("%s%s is %q, not %q", path, a.Sibling, said, caption)
			}
		}
	}
	for rule, names := range sh.constraints {
		n := 0
		for _, name := range names {
			if _, ok := v[name]; ok {
				n++
			}
		}
		if rule == "at_least_one" && n == 0 || rule == "just_one" && n != 1 {
			wrong("%s: %s of %v, and there are %d", path, rule, names, n)
		}
	}
	return problems
}

func (s *schema) value(path string, v any, a attribute, profiles []string) []string {
	wrong := func(format string, args ...any) []string {
		return []string{path + " " + fmt.Sprintf(format, args...)}
	}
	if len(a.Enum) > 0 {
		if _, ok := a.Enum[fmt.Sprint(v)]; !ok {
			return wrong("is %v, which is none of its values", v)
		}
	}
	if a.Type == "object" { // unmapped: anything
		if _, ok := v.(map[string]any); !ok {
			return wrong("is no object")
		}
		return nil
	}
	t, isType := s.Types[a.Type]
	if !isType {
		m, ok := v.(map[string]any)
		if !ok {
			return wrong("is no object of type %s", a.Type)
		}
		sh, err := s.resolve(s.Objects, a.Type, profiles)
		if err != nil {
			return wrong("%v", err)
		}
		return s.object(path+".", m, sh, profiles)
	}
	base := a.Type
	if t.Type != "" {
		base = t.Type
	}
	switch base {
	case "string_t":
		text, ok := v.(string)
		switch {
		case !ok:
			return wrong("is no string")
		case t.MaxLen > 0 && len(text) > t.MaxLen:
			return wrong("is longer than %d", t.MaxLen)
		case t.Regex != "" && !regexp.MustCompile(t.Regex).MatchString(text):
			return wrong("%q is no %s", text, a.Type)
		}
	case "integer_t", "long_t":
		n, _ := v.(json.Number)
		i, err := n.Int64()
		switch {
		case err != nil:
			return wrong("is no whole number")
		case base == "integer_t" && (i < math.MinInt32 || i > math.MaxInt32):
			return wrong("is too large")
		case len(t.Range) == 2 && (i < t.Range[0] || i > t.Range[1]):
			return wrong("is outside of %v", t.Range)
		}
	case "boolean_t":
		if _, ok := v.(bool); !ok {
			return wrong("is neither true nor false")
		}
	case "json_t":
	default:
		return wrong("has the type %s, which is not checked", base)
	}
	return nil
}

// The checker finds what it is there to find.
func TestSchemaCheck(t *testing.T) {
	s := vendored(t)
	good, err := Marshal(entryLine(t, entries("credentials.served")[0]), "laptop")
	if err != nil {
		t.Fatal(err)
	}
	if bad := s.check(good); bad != nil {
		t.Fatal(bad)
	}
	for _, tt := range []struct{ from, to, want string }{
		{`"time":1793696400123,`, ``, "time is required"},
		{`"time":1793696400123`, `"time":"now"`, "time is no whole number"},
		{`"time":1793696400123`, `"time":1793696400123,"tim":1`, "tim is unknown"},
		{`"time":1793696400123`, `"time":1793696400123,"class_name":7`, "class_name is no string"},
		{`"severity_id":1`, `"severity_id":7`, "severity_id is 7, which is none of its values"},
		{`"severity_id":1`, `"severity_id":99`, "severity_id is other, and severity does not say what"},
		{`"severity_id":1`, `"severity_id":1,"severity":"Fatal"`, `severity is "Fatal", not "Informational"`},
		{`"type_uid":300301`, `"type_uid":300302`, "do not fit"},
		{`"class_uid":3003`, `"class_uid":3013`, "no class"},
		{`"privileges":["arn:aws:iam::444455556666:role/team/Deploy"],`, ``, "just_one"},
		{`"privileges":["arn:aws:iam::444455556666:role/team/Deploy"]`, `"privileges":"all"`, "privileges is no list"},
		{`"pid":4242`, `"pid":4242000000000`, "pid is too large"},
		{`"is_truncated":true`, `"is_truncated":"yes"`, "is_truncated is neither"},
		{`,"security_control"`, ``, "disposition_id is unknown"},
		{`"cloud":{"provider":"AWS",`, `"cloud":{`, "cloud.provider is required"},
		{`"app_name":"terraform"`, `"app_name":"terraform","authorizations":[{}]`, "authorization is not vendored"},
		{`"hostname":"laptop"`, `"hostname":"laptop","ip":"::g"`, "is no ip_t"},
	} {
		bad := strings.Replace(string(good), tt.from, tt.to, 1)
		if bad == string(good) {
			t.Errorf("%s is not in %s", tt.from, good)
		}
		if got := s.check([]byte(bad)); !strings.Contains(strings.Join(got, "\n"), tt.want) {
			t.Errorf("%s: got %q, want %q", tt.to, got, tt.want)
		}
	}
}
