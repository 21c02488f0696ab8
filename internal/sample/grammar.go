package sample

import (
	_ "embed"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
)

//go:embed phrases.txt
var phrasesText string

// phrases is the parsed phrase file. It never changes after the first use.
var phrases = sync.OnceValue(func() *grammar {
	g, err := parseGrammar(phrasesText)
	if err != nil {
		panic(err) // the file is part of the program: a fault in it is a bug
	}
	return g
})

// A phrase is literal text, slots and choices, in order.
type phrase []piece

// A piece is one of: literal text, a slot's name, or a choice between phrases.
type piece struct {
	text    string
	slot    string
	choices []phrase
}

type grammar struct {
	lists      map[string][]phrase
	groups     []*group
	categories []*category
	outside    []phrase // messages that belong to no category
	weightSum  float64
}

// A group holds categories that are easily taken for each other.
type group struct {
	name       string
	vague      []phrase
	background []phrase
	members    []*category
}

type category struct {
	name       string
	group      *group
	weight     float64 // relative frequency
	orderShare float64 // share of tickets that name an order ID
	core       []phrase
	detail     []phrase
	ask        []phrase
	noun       []phrase
}

// pick draws a category by its weight.
func (g *grammar) pick(r *rand.Rand) *category {
	at := r.Float64() * g.weightSum
	for _, c := range g.categories {
		if at -= c.weight; at < 0 {
			return c
		}
	}
	return g.categories[len(g.categories)-1]
}

// parseGrammar reads the format that the head of phrases.txt describes.
func parseGrammar(text string) (*grammar, error) {
	p := grammarParser{grammar: &grammar{lists: map[string][]phrase{}}}
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := p.line(line); err != nil {
			return nil, fmt.Errorf("sample: phrases.txt:%d: %w", i+1, err)
		}
	}
	return p.grammar, nil
}

type grammarParser struct {
	grammar  *grammar
	list     string // the open list, "" inside a group
	group    *group
	category *category
}

func (p *grammarParser) line(line string) error {
	mark, rest, _ := strings.Cut(line, " ")
	switch mark {
	case "=":
		p.list = rest
		return nil
	case "==":
		p.list, p.category, p.group = "", nil, &group{name: rest}
		p.grammar.groups = append(p.grammar.groups, p.group)
		return nil
	case "+":
		p.list = ""
		return p.openCategory(rest)
	}
	if p.list != "" {
		ph, err := parsePhrase(line)
		p.grammar.lists[p.list] = append(p.grammar.lists[p.list], ph)
		return err
	}
	ph, err := parsePhrase(rest)
	if err != nil {
		return err
	}
	return p.addPhrase(mark, ph)
}

func (p *grammarParser) openCategory(rest string) error {
	words := strings.Fields(rest)
	if len(words) != 3 || p.group == nil {
		return fmt.Errorf("want a group and then \"+ name weight share\", have %q", rest)
	}
	weight, err := strconv.ParseFloat(words[1], 64)
	if err != nil {
		return err
	}
	share, err := strconv.ParseFloat(words[2], 64)
	if err != nil {
		return err
	}
	p.category = &category{name: words[0], group: p.group, weight: weight, orderShare: share}
	p.group.members = append(p.group.members, p.category)
	p.grammar.categories = append(p.grammar.categories, p.category)
	p.grammar.weightSum += weight
	return nil
}

func (p *grammarParser) addPhrase(mark string, ph phrase) error {
	var to *[]phrase
	switch {
	case mark == "o":
		to = &p.grammar.outside
	case mark == "v" && p.group != nil:
		to = &p.group.vague
	case mark == "x" && p.group != nil:
		to = &p.group.background
	case p.category == nil:
		return fmt.Errorf("%q stands outside a category", mark)
	case mark == "c":
		to = &p.category.core
	case mark == "d":
		to = &p.category.detail
	case mark == "a":
		to = &p.category.ask
	case mark == "n":
		to = &p.category.noun
	default:
		return fmt.Errorf("unknown mark %q", mark)
	}
	*to = append(*to, ph)
	return nil
}

// parsePhrase reads text with {slots} and [choices|between|phrases], which may nest.
func parsePhrase(text string) (phrase, error) {
	ph, rest, err := parsePieces(text)
	if err == nil && rest != "" {
		err = fmt.Errorf("%q: %q without its opening bracket", text, rest)
	}
	return ph, err
}

// parsePieces reads up to an unmatched "|" or "]" and returns what follows from there.
func parsePieces(text string) (ph phrase, rest string, err error) {
	for text != "" {
		switch text[0] {
		case '|', ']':
			return ph, text, nil
		case '{':
			slot, after, ok := strings.Cut(text[1:], "}")
			if !ok {
				return nil, "", fmt.Errorf("%q: { without }", text)
			}
			ph, text = append(ph, piece{slot: slot}), after
		case '[':
			choices, after, err := parseChoices(text[1:])
			if err != nil {
				return nil, "", err
			}
			ph, text = append(ph, piece{choices: choices}), after
		default:
			end := strings.IndexAny(text, "{[|]")
			if end < 0 {
				end = len(text)
			}
			ph, text = append(ph, piece{text: text[:end]}), text[end:]
		}
	}
	return ph, "", nil
}

func parseChoices(text string) (choices []phrase, rest string, err error) {
	for {
		choice, after, err := parsePieces(text)
		if err != nil {
			return nil, "", err
		}
		choices = append(choices, choice)
		switch {
		case after == "":
			return nil, "", fmt.Errorf("%q: [ without ]", text)
		case after[0] == ']':
			return choices, after[1:], nil
		}
		text = after[1:]
	}
}
