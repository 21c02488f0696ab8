// Package datacheck looks for what is wrong with labelled examples before a model learns it: duplicates, contradictions,
// labels that are probably wrong, categories that cannot be told apart. It also says what more labels would bring. It does no
// I/O and changes nothing: every finding names its rows and what a person could do about them.
//
// docs/data_check.md says how each finding is made and what was measured.
package datacheck

import "occam/internal/task"

// A Kind names a sort of finding; the names are part of the JSON contract.
type Kind string

// The findings, in the order they are reported.
const (
	OutsideSchema   Kind = "outside_schema"   // a label that the schema does not allow
	SameID          Kind = "same_id"          // rows that share an ID
	OneCategory     Kind = "one_category"     // every label of a field is the same
	Contradiction   Kind = "contradiction"    // the same text with different labels
	SpanNotInText   Kind = "span_not_in_text" // a value to extract that its text does not hold
	LookAlikeNames  Kind = "look_alike_names" // categories that differ by case, spaces or invisible characters
	ShiftedBlock    Kind = "shifted_block"    // rows in a row whose labels belong to others
	SuspiciousLabel Kind = "suspicious_label" // a model that did not see the row, and the texts nearest to it, say another label
	NearConflict    Kind = "near_conflict"    // texts that differ by a few words, with different labels
	Inseparable     Kind = "inseparable"      // two categories that no one could tell apart better than by guessing
	HardPair        Kind = "hard_pair"        // two categories that are often taken for each other
	RareCategory    Kind = "rare_category"    // too few rows to learn from
	Leak            Kind = "leak"             // rows that also stand in the reference, or nearly
	Duplicate       Kind = "duplicate"        // the same text and labels
	NearDuplicate   Kind = "near_duplicate"   // texts that differ by a few words, with the same labels
	OddText         Kind = "odd_text"         // control characters, a single character, very long
	Unlabelled      Kind = "unlabelled"       // rows without a label of a field
	UnknownField    Kind = "unknown_field"    // labels under a name that the schema lacks
)

// Severities of a finding.
const (
	Error   = "error"   // training refuses it, or it cannot be meant
	Warning = "warning" // costs accuracy, or makes a measurement wrong
	Note    = "note"    // worth knowing
)

// A Report is what was found. Findings are ordered as the kinds are, then by field.
type Report struct {
	Rows      int       `json:"rows"`
	Reference int       `json:"reference_rows,omitempty"`
	Findings  []Finding `json:"findings"`
	Ceilings  []Ceiling `json:"ceilings,omitempty"` // one a classified field; none of a quick check
	Skipped   []string  `json:"skipped,omitempty"`  // parts of the check that could not be made, and why
}

// A Finding is everything of one kind in one field.
type Finding struct {
	Kind     Kind    `json:"kind"`
	Field    string  `json:"field,omitempty"`
	Severity string  `json:"severity"`
	Rows     int     `json:"rows"` // how many rows of the checked examples it concerns
	Why      string  `json:"why"`  // what was found, in a sentence
	Do       string  `json:"do"`   // what to do about it
	Groups   []Group `json:"groups"`
}

// A Group is rows that belong together: copies of one text, a block, one suspicious row, one category. Most telling first.
type Group struct {
	Rows   []Row    `json:"rows,omitempty"`
	Values []string `json:"values,omitempty"` // the categories concerned
	Note   string   `json:"note,omitempty"`
	Score  float64  `json:"score,omitempty"` // what the finding is ranked by, as docs/data_check.md defines it for its kind
}

// A Row names one example. Label and Suggested are of the finding's field.
type Row struct {
	Index     int         `json:"index"` // in the examples, or in the reference
	ID        string      `json:"id"`
	Line      int         `json:"line,omitempty"`
	Reference bool        `json:"reference,omitempty"`
	Label     *task.Value `json:"label,omitempty"`
	Suggested *task.Value `json:"suggested,omitempty"` // what the label probably should be; a person decides
}

// Find returns the findings of one kind.
func (r *Report) Find(kind Kind) []Finding {
	var found []Finding
	for _, f := range r.Findings {
		if f.Kind == kind {
			found = append(found, f)
		}
	}
	return found
}

// Count returns how many rows the findings of one kind concern, over all fields.
func (r *Report) Count(kind Kind) int {
	n := 0
	for _, f := range r.Find(kind) {
		n += f.Rows
	}
	return n
}

func (r *Report) add(f Finding) {
	if len(f.Groups) == 0 {
		return
	}
	r.Findings = append(r.Findings, f)
}

func rowOf(examples []task.Example, i int) Row {
	return Row{Index: i, ID: examples[i].ID, Line: examples[i].Line}
}

// labelledRow is a row with its label of a field.
func labelledRow(examples []task.Example, i int, field string) Row {
	r := rowOf(examples, i)
	if v, known := examples[i].Labels[field]; known {
		r.Label = &v
	}
	return r
}
