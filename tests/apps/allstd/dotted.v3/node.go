// Package dotted is called differently from the last element of its path, which holds a dot.
package dotted

// Node has all that makes offsets hard: padding, blanks, embedding by value and by pointer, an empty last field.
type Node struct {
	Kind  byte
	Value int64
	_     [3]byte
	Base
	*Other
	Inner struct {
		A uint16
		B string
	}
	End struct{}
}

// Base is embedded by value.
type Base struct {
	Flag bool
	Line uint32
}

// Other is embedded by pointer.
type Other struct{ Column int }

// Parse keeps a function in this package.
//
//go:noinline
func (n *Node) Parse(text string) int {
	n.Value = int64(len(text))
	return int(n.Line) + len(n.Inner.B)
}
