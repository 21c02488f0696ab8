package sample

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// orderID draws an order number in one of the shapes that the shop's sales channels have used over the years. It is a
// string: leading zeros count.
func orderID(r *rand.Rand) string {
	switch at := r.IntN(100); {
	case at < 32:
		return fmt.Sprintf("00%08d", r.IntN(1e8))
	case at < 40:
		return fmt.Sprintf("%010d", 1e9+r.Int64N(8e9))
	case at < 55:
		return fmt.Sprintf("%07d", r.IntN(1e7))
	case at < 73:
		return fmt.Sprintf("HP-%06d", r.IntN(1e6))
	case at < 83:
		return fmt.Sprintf("WEB%07d", r.IntN(1e6))
	case at < 92:
		return fmt.Sprintf("%d-%06d", 2023+r.IntN(3), r.IntN(4e5))
	default:
		return fmt.Sprintf("%03d-%07d-%07d", 100+r.IntN(300), r.IntN(1e7), r.IntN(1e7))
	}
}

// numbers are the slots that code fills. Most of them look like an order ID to a hasty reader, which is their purpose.
var numbers = map[string]func(*rand.Rand) string{
	"decoy":    orderID,
	"date":     date,
	"amount":   amount,
	"phone":    phone,
	"tracking": tracking,
	"account":  account,
	"email":    email,
	"promo":    promo,
	"invoice": func(r *rand.Rand) string {
		return choose(r, fmt.Sprintf("INV-%d-%05d", 2023+r.IntN(3), r.IntN(1e5)), fmt.Sprintf("%d/%05d", 2023+r.IntN(3), r.IntN(1e5)),
			fmt.Sprintf("RE%07d", r.IntN(1e7)))
	},
	"sku": func(r *rand.Rand) string {
		return choose(r, fmt.Sprintf("%02d-%04d", r.IntN(100), r.IntN(1e4)), fmt.Sprintf("%06d", r.IntN(1e6)),
			fmt.Sprintf("%c%c-%04d", 'A'+r.IntN(26), 'A'+r.IntN(26), r.IntN(1e4)))
	},
	"zip":  func(r *rand.Rand) string { return fmt.Sprintf("%05d", r.IntN(1e5)) },
	"card": func(r *rand.Rand) string { return fmt.Sprintf("%04d", r.IntN(1e4)) },
	"case": func(r *rand.Rand) string {
		return choose(r, fmt.Sprintf("%05d", r.IntN(1e5)), fmt.Sprintf("%07d", r.IntN(1e7)))
	},
	"serial": func(r *rand.Rand) string {
		return choose(r, fmt.Sprintf("%09d", r.IntN(1e9)), fmt.Sprintf("%012d", r.Int64N(1e12)))
	},
	"small": func(r *rand.Rand) string { return fmt.Sprint(2 + r.IntN(40)) },
}

func choose(r *rand.Rand, options ...string) string { return options[r.IntN(len(options))] }

var monthNames = [...]string{"January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
	"November", "December"}

func date(r *rand.Rand) string {
	day, month, year := 1+r.IntN(28), 1+r.IntN(12), 2024+r.IntN(2)
	switch r.IntN(6) {
	case 0:
		return fmt.Sprintf("%02d/%02d/%d", month, day, year)
	case 1:
		return fmt.Sprintf("%d.%d.%d", day, month, year)
	case 2:
		return fmt.Sprintf("%d-%02d-%02d", year, month, day)
	case 3:
		return fmt.Sprintf("%d %s", day, monthNames[month-1])
	case 4:
		return fmt.Sprintf("%s %d", monthNames[month-1], day)
	default:
		return fmt.Sprintf("the %dth of %s", 4+r.IntN(16), monthNames[month-1])
	}
}

func amount(r *rand.Rand) string {
	whole, cents := 5+r.IntN(240), choose(r, "99", "95", "50", "00", "49", fmt.Sprintf("%02d", r.IntN(100)))
	switch r.IntN(5) {
	case 0:
		return fmt.Sprintf("$%d", whole)
	case 1:
		return fmt.Sprintf("%d.%s EUR", whole, cents)
	case 2:
		return fmt.Sprintf("£%d.%s", whole, cents)
	case 3:
		return fmt.Sprintf("%d,%s €", whole, cents)
	default:
		return fmt.Sprintf("$%d.%s", whole, cents)
	}
}

func phone(r *rand.Rand) string {
	a, b, c := 200+r.IntN(700), 200+r.IntN(700), r.IntN(1e4)
	return choose(r, fmt.Sprintf("(%d) %d-%04d", a, b, c), fmt.Sprintf("%d-%d-%04d", a, b, c), fmt.Sprintf("+44 7%d %03d%03d", a, b, c%1000),
		fmt.Sprintf("0%d%d%04d", a%1000, b, c), fmt.Sprintf("+1%d%d%04d", a, b, c))
}

func tracking(r *rand.Rand) string {
	switch r.IntN(4) {
	case 0:
		return fmt.Sprintf("1Z%06d%010d", r.IntN(1e6), r.Int64N(1e10))
	case 1:
		return fmt.Sprintf("00340434%012d", r.Int64N(1e12))
	case 2:
		return fmt.Sprintf("%010d", r.Int64N(1e10))
	default:
		return fmt.Sprintf("RR%09dDE", r.IntN(1e9))
	}
}

// account draws ten upper-case letters and digits.
func account(r *rand.Rand) string {
	const alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
	var b [10]byte
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b[:])
}

func promo(r *rand.Rand) string {
	return choose(r, "WELCOME", "SPRING", "SAVE", "FRIEND", "SUMMER", "VIP", "BLACK") + choose(r, "5", "10", "15", "20", "25", "2025")
}

func email(r *rand.Rand) string {
	g := phrases()
	first, last := nameFrom(r, g.lists["first"]), nameFrom(r, g.lists["last"])
	first, last = strings.ToLower(first), strings.ToLower(strings.ReplaceAll(last, "'", ""))
	domain := choose(r, "mail.example", "inbox.example", "post.example", last+".example")
	return choose(r, first+"."+last, first[:1]+last, fmt.Sprintf("%s%s%d", first, last[:1], 1+r.IntN(99))) + "@" + domain
}

// nameFrom draws from a list whose entries are plain words.
func nameFrom(r *rand.Rand, list []phrase) string { return list[r.IntN(len(list))][0].text }
