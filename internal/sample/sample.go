// Package sample makes support tickets: the bundled data that the demo trains on and replays. A ticket belongs to one of
// 50 categories of an online shop that also sells a subscription, and may name an order. Everything follows from a seed.
//
// The tickets are made to be hard enough for an honest measurement; docs/sample_data.md says how, and what a plain linear
// model scores on them.
package sample

import (
	"fmt"
	"math/rand/v2"

	"occam/internal/task"
)

// Names of the two fields of a ticket's answer.
const (
	Category = "category"
	OrderID  = "order_id"
)

const (
	outsideShare    = 0.02 // messages that belong to no category
	wrongLabelShare = 0.02 // tickets whose label is wrong
)

// A Ticket is one message with what a labeller said about it and what is true.
type Ticket struct {
	task.Example             // Labels are the labeller's: wrong in 2 % of the tickets, empty where OutOfScope
	Truth        task.Output // the right answer; category is null where OutOfScope
	OutOfScope   bool        // the message belongs to none of the categories
}

// Fields returns the two fields of a ticket's answer: the category, null where none fits, and the order ID exactly as it
// stands in the text, null where there is none.
func Fields() []task.Field {
	return []task.Field{
		{Name: Category, Kind: task.Category, Values: Categories(), Nullable: true},
		{Name: OrderID, Kind: task.Span, Nullable: true},
	}
}

// Task returns the task that the demo runs.
func Task() task.Task {
	return task.Task{
		Name:       "ticket-triage",
		Fields:     Fields(),
		System:     SystemPrompt,
		Generalist: "gpt-4o",
		Target:     task.DefaultTarget,
		Tiers:      []string{"linear"},
		OnDoubt:    "generalist",
		Audit:      0.01,
	}
}

// SystemPrompt is what an app would tell a general model to do with a ticket. The ticket is the whole user message.
const SystemPrompt = "You triage support tickets of Harbor & Pine, an online shop that also sells a subscription tool. " +
	"Read the customer's message and answer with JSON: \"category\", the one category of the list that fits the main request, " +
	"and \"order_id\", the order number that the request is about, exactly as the customer wrote it, or null if there is none. " +
	"Where a message holds two requests, the main one is the one the customer wants solved first. Quoted mails count as " +
	"background. Order numbers come in several shapes and may start with zeros; invoice, tracking, account, case and phone " +
	"numbers are not order numbers. If no category fits, answer null for the category."

// Categories returns the 50 category names, in the order of the schema.
func Categories() []string {
	g := phrases()
	names := make([]string, len(g.categories))
	for i, c := range g.categories {
		names[i] = c.name
	}
	return names
}

// Confusable returns the categories that a reader would most easily take for the one named: its group without itself.
// It is empty for a name that is no category.
func Confusable(name string) []string {
	for _, c := range phrases().categories {
		if c.name == name {
			return c.group.without(c)
		}
	}
	return nil
}

func (g *group) without(c *category) []string {
	var names []string
	for _, m := range g.members {
		if m != c {
			names = append(names, m.name)
		}
	}
	return names
}

// Tickets returns n labelled tickets to train on: all in scope, 2 % of the labels wrong. The same seed gives the same
// tickets, and a longer run starts with the shorter one.
func Tickets(seed uint64, n int) []task.Example {
	examples := make([]task.Example, 0, n)
	for i := 0; len(examples) < n; i++ {
		if t := ticket(seed, i); !t.OutOfScope {
			examples = append(examples, t.Example)
		}
	}
	return examples
}

// Traffic returns n messages as they come in: those of Tickets with the same seed, and among them 2 % that are out of
// scope.
func Traffic(seed uint64, n int) []Ticket {
	tickets := make([]Ticket, n)
	for i := range tickets {
		tickets[i] = ticket(seed, i)
	}
	return tickets
}

// ticket makes the i-th message of a seed. Each message has a random source of its own, so any can be made alone.
func ticket(seed uint64, i int) Ticket {
	w := newWriter(rand.New(rand.NewPCG(seed, uint64(i)*0x9e3779b97f4a7c15+1)))
	id := fmt.Sprintf("ticket-%d-%06d", seed, i)
	if w.r.Float64() < outsideShare {
		text := w.outside()
		return Ticket{
			Example:    task.Example{ID: id, Text: text},
			Truth:      task.Output{Category: task.Null, OrderID: task.Null},
			OutOfScope: true,
		}
	}
	c := w.g.pick(w.r)
	text := w.message(c)
	truth := task.Output{Category: task.String(c.name), OrderID: task.Null}
	if w.order != "" {
		truth[OrderID] = task.String(w.order)
	}
	labels := task.Output{Category: truth[Category], OrderID: truth[OrderID]}
	if w.r.Float64() < wrongLabelShare {
		w.mislabel(labels, c)
	}
	return Ticket{Example: task.Example{ID: id, Text: text, Labels: labels, Source: "person"}, Truth: truth}
}

// mislabel puts one mistake into labels, of the kinds that people make: mostly a neighbouring category, sometimes any
// other one, sometimes an order ID that was overlooked.
func (w *writer) mislabel(labels task.Output, c *category) {
	if w.order != "" && w.r.Float64() < 0.2 {
		labels[OrderID] = task.Null
		return
	}
	wrong := w.g.pick(w.r)
	if w.r.Float64() < 0.7 {
		wrong = c.group.members[w.r.IntN(len(c.group.members))]
	}
	for wrong == c {
		wrong = w.g.pick(w.r)
	}
	labels[Category] = task.String(wrong.name)
}
