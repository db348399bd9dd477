package broker_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"gatepass/broker"
)

// TestEventKinds finds each constant of type EventKind in the source.
func TestEventKinds(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []broker.EventKind
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == "EventKind" {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, broker.EventKind(value))
		}
		return true
	})
	if !slices.Equal(kinds, broker.EventKinds) {
		t.Errorf("there are the events %q, and EventKinds has %q", kinds, broker.EventKinds)
	}
}
