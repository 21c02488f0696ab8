package task

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// fold writes the full-width forms of East Asian text and the digits of every script as ASCII.
func fold(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < 0x80:
			return r
		case r >= '！' && r <= '～':
			return r - '！' + '!'
		case r == '￥':
			return '¥'
		case r == '￡':
			return '£'
		case unicode.Is(unicode.Nd, r):
			return '0' + digitValue(r)
		}
		return r
	}, text)
}

// digitValue is the value of a decimal digit: Unicode lays them out in runs of ten, from zero.
func digitValue(r rune) rune {
	for _, x := range unicode.Nd.R16 {
		if r >= rune(x.Lo) && r <= rune(x.Hi) {
			return (r - rune(x.Lo)) % 10
		}
	}
	for _, x := range unicode.Nd.R32 {
		if r >= rune(x.Lo) && r <= rune(x.Hi) {
			return (r - rune(x.Lo)) % 10
		}
	}
	return 0
}

// datePatterns find what dateReadings may read: three numbers between marks; a day, a word and a year; a word, a day and a year.
var datePatterns = []*regexp.Regexp{
	regexp.MustCompile(`\p{Nd}+[-/.年년－／．] ?\p{Nd}+[-/.月월－／．] ?\p{Nd}+[日일]?`),
	regexp.MustCompile(`\p{Nd}{1,2}[^\p{Nd}\n]{3,24}?\p{Nd}{4}`),
	regexp.MustCompile(`\pL[\pL\pM]{2,}\.? \p{Nd}{1,2}[^\p{Nd}\n]{1,6}?\p{Nd}{4}`),
}

var (
	numericDate = regexp.MustCompile(`^([0-9]{1,4})([-/.年년]) ?([0-9]{1,2})([-/.月월]) ?([0-9]{1,4})[日일]?$`)
	dayWordYear = regexp.MustCompile(`^([0-9]{1,2})([^0-9\n]{3,24})([0-9]{4})$`)
	wordDayYear = regexp.MustCompile(`^(\pL[\pL\pM]{2,})\.? ([0-9]{1,2})[^0-9\n]{1,6}([0-9]{4})$`)
)

const (
	dayFirst   = "day first"
	monthFirst = "month first"
	shortYear  = "yy" // the writing of which a century is the sense
)

// dateReadings reads a date of three numbers, or of a day, the name of a month, whose number hint knows, and a year.
func dateReadings(text string, hint func(string) string) []reading {
	if part := numericDate.FindStringSubmatch(text); part != nil {
		switch joint := part[2] + part[4]; {
		case len(part[1]) == 4 && (part[2] == part[4] || joint == "年月" || joint == "년월"):
			return appendDate(nil, part[1], part[3], part[5])
		case part[2] == part[4] && len(part[1]) <= 2:
			return numbersThenYear(part[1], part[3], part[5], part[2])
		}
		return nil
	}
	day, year, word := "", "", ""
	if part := dayWordYear.FindStringSubmatch(text); part != nil {
		day, year, word = part[1], part[3], longestWord(part[2])
	} else if part := wordDayYear.FindStringSubmatch(text); part != nil {
		day, year, word = part[2], part[3], part[1]
	}
	word = strings.ToLower(word)
	month := hint(word)
	if word == "" || month == "" {
		return nil
	}
	return appendDate(nil, year, month, day, meaning{word, month})
}

// numbersThenYear reads a.b.year. Which of the first two is the day is clear where the other is above 12 or both are the same; else the
// mark between them must be known to say it. A year of two digits needs its century.
func numbersThenYear(a, b, year, mark string) (all []reading) {
	type century struct {
		year  string
		needs []meaning
	}
	years := []century{{year: year}}
	switch len(year) {
	case 4:
	case 2:
		years = []century{{"19" + year, []meaning{{shortYear, "19"}}}, {"20" + year, []meaning{{shortYear, "20"}}}}
	default:
		return nil
	}
	for _, y := range years {
		asDay, asMonth := appendDate(nil, y.year, b, a, y.needs...), appendDate(nil, y.year, a, b, y.needs...)
		switch {
		case a == b || len(asMonth) == 0:
			all = append(all, asDay...)
		case len(asDay) == 0:
			all = append(all, asMonth...)
		default:
			asDay[0].needs = append(asDay[0].needs, meaning{mark, dayFirst})
			asMonth[0].needs = append(asMonth[0].needs, meaning{mark, monthFirst})
			all = append(append(all, asDay...), asMonth...)
			continue
		}
		if a != b && len(all) > 0 {
			order := dayFirst
			if len(asDay) == 0 {
				order = monthFirst
			}
			all[len(all)-1].shows = []meaning{{mark, order}}
		}
	}
	return all
}

// appendDate adds the reading of a year, a month and a day, if there is such a day.
func appendDate(all []reading, year, month, day string, needs ...meaning) []reading {
	when, err := time.Parse("2006-1-2", year+"-"+strings.TrimPrefix(month, "0")+"-"+strings.TrimPrefix(day, "0"))
	if err != nil {
		return all
	}
	return append(all, reading{value: when.Format(time.DateOnly), needs: append([]meaning(nil), needs...)})
}

// longestWord returns the longest run of letters in s, of several the first.
func longestWord(s string) (longest string) {
	for word := range strings.FieldsFuncSeq(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) }) {
		if len(word) > len(longest) {
			longest = word
		}
	}
	return longest
}

// monthOf returns the number of a canonical date's month, without a leading zero, or "".
func monthOf(date string) string {
	when, err := time.Parse(time.DateOnly, date)
	if err != nil {
		return ""
	}
	return strconv.Itoa(int(when.Month()))
}
