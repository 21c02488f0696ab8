package dashboard

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"occam/internal/lifecycle"
)

// TestEveryReasonHasWords reads the cascade's reasons from its source, so that a new one is not shown as a code.
func TestEveryReasonHasWords(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../cascade/cascade.go", nil, parser.SkipObjectResolution)
	must(t, err)
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return true
		}
		kind, ok := v.Type.(*ast.Ident)
		literal, isText := v.Values[0].(*ast.BasicLit)
		if !ok || kind.Name != "Reason" || !isText {
			return true
		}
		code, err := strconv.Unquote(literal.Value)
		must(t, err)
		if found++; reasonWords[code] == "" {
			t.Errorf("the reason %q has no words", code)
		}
		return true
	})
	if found < 10 {
		t.Errorf("only %d reasons were found in the cascade", found)
	}
}

func TestEveryStateHasWords(t *testing.T) {
	for _, s := range lifecycle.States() {
		if taskStateWords[string(s)] == "" {
			t.Errorf("the state %q has no words", s)
		}
	}
	for _, c := range []lifecycle.Command{lifecycle.Promote, lifecycle.RollBack, lifecycle.Pause, lifecycle.Resume} {
		if commandWords[string(c)] == "" {
			t.Errorf("the command %q has no words", c)
		}
	}
}
