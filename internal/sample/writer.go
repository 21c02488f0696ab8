package sample

import (
	"math"
	"math/rand/v2"
	"strings"
)

// A writer composes one message.
type writer struct {
	r *rand.Rand
	g *grammar

	order      string              // the ID that the message must name, "" for none
	orderShown bool                // it stands in the text
	plainOrder bool                // {order} is to be written without its ID for now
	memo       map[string][]string // what {product} and its like stand for in this message, by use within one phrase
	used       map[string]int      // uses of a remembered slot within the phrase at hand
	other      *category           // of a second request
}

// remembered are the slots that mean the same thing throughout one message.
var remembered = map[string]bool{"product": true, "gadget": true, "wear": true, "carrier": true, "plan": true, "amount": true, "city": true, "mum": true, "account": true,
	"browser": true}

func newWriter(r *rand.Rand) *writer {
	return &writer{r: r, g: phrases(), memo: map[string][]string{}, used: map[string]int{}}
}

func (w *writer) chance(p float64) bool { return w.r.Float64() < p }

// one draws a line of a list and writes it out. Lines further down are rarer, as rare phrasings are in life.
func (w *writer) one(list []phrase) string {
	if len(list) == 0 {
		return ""
	}
	at := int(math.Pow(w.r.Float64(), 1.35) * float64(len(list)))
	return w.expand(list[at])
}

// any draws evenly.
func (w *writer) any(list string) string {
	lines := w.g.lists[list]
	return w.expand(lines[w.r.IntN(len(lines))])
}

func (w *writer) expand(ph phrase) string {
	clear(w.used)
	var b strings.Builder
	w.write(&b, ph)
	return b.String()
}

func (w *writer) write(b *strings.Builder, ph phrase) {
	for _, p := range ph {
		switch {
		case p.choices != nil:
			w.write(b, p.choices[w.r.IntN(len(p.choices))])
		case p.slot != "":
			b.WriteString(w.slot(p.slot))
		default:
			b.WriteString(p.text)
		}
	}
}

func (w *writer) slot(name string) string {
	switch name {
	case "order":
		return w.orderMention()
	case "other":
		return w.nested(w.other.core)
	case "othernoun":
		return w.nested(w.other.noun)
	}
	if !remembered[name] {
		return w.fresh(name)
	}
	use := w.used[name]
	w.used[name]++
	for len(w.memo[name]) <= use {
		w.memo[name] = append(w.memo[name], w.fresh(name))
	}
	return w.memo[name][use]
}

// fresh fills a slot anew.
func (w *writer) fresh(name string) string {
	if draw := numbers[name]; draw != nil {
		return draw(w.r)
	}
	lines := w.g.lists[name]
	if lines == nil {
		panic("sample: phrases.txt has no list " + name)
	}
	var b strings.Builder
	w.write(&b, lines[w.r.IntN(len(lines))])
	return b.String()
}

// nested writes a line about the second request; it never takes the order ID, which belongs to the main one.
func (w *writer) nested(list []phrase) string {
	w.plainOrder = true
	defer func() { w.plainOrder = false }()
	var b strings.Builder
	w.write(&b, list[w.r.IntN(len(list))])
	return b.String()
}

// orderMention writes {order}: with its ID the first time, if there is one.
func (w *writer) orderMention() string {
	if w.order == "" || w.plainOrder || w.orderShown {
		return choose(w.r, "my order", "my order", "my order", "the order", "my last order")
	}
	w.orderShown = true
	form := choose(w.r, "order #", "my order #", "order ", "my order ", "order number ", "order no. ", "my order no ", "my order (#)",
		"#", "order no: ", "the order #", "my order nr ", "order id ")
	if head, ok := strings.CutSuffix(form, ")"); ok {
		return head + w.order + ")"
	}
	return form + w.order
}

// message writes a ticket of category c, with an order ID in the category's share of cases.
func (w *writer) message(c *category) string {
	if w.chance(c.orderShare) {
		w.order = orderID(w.r)
	}
	chat := w.chance(0.45)
	if chat {
		return w.chatMessage(c)
	}
	return w.mail(c)
}

// request writes what the customer has to say, fragment by fragment.
func (w *writer) request(c *category, chat bool) []string {
	long := 1.0
	if chat {
		long = 0.5
	}
	core := c.core
	vague := w.chance(0.035)
	if vague {
		core = c.group.vague
	}
	var said []string
	if w.chance(0.5 * long) {
		said = append(said, w.one(c.group.background))
	}
	said = append(said, w.one(core))
	if w.chance(0.15) && len(said) == 2 {
		said[0], said[1] = said[1], said[0]
	}
	if w.chance(0.55*long) || vague && w.chance(0.6) {
		said = append(said, w.one(c.detail))
	}
	if w.chance(0.35 * long) {
		said = append(said, w.any("lookalike"))
	}
	if w.order != "" && w.chance(0.04) {
		said = append(said, w.any("otherorder"))
	}
	if w.chance(0.3 * long) {
		said = append(said, w.any("mood"))
	}
	if w.chance(0.6 * long) {
		said = append(said, w.one(c.ask))
	}
	return w.addSecondRequest(said, c)
}

// addSecondRequest puts another request into some of the messages. The label stays with the main one: the request that
// comes first, unless the customer says that the first one is settled or can wait.
func (w *writer) addSecondRequest(said []string, c *category) []string {
	if !w.chance(0.1) {
		return said
	}
	w.other = w.g.pick(w.r)
	if w.chance(0.35) {
		w.other = c.group.members[w.r.IntN(len(c.group.members))]
	}
	if w.other == c {
		return said
	}
	if w.chance(0.3) {
		return append([]string{w.any("settled")}, said...)
	}
	return append(said, w.any("second"))
}

func (w *writer) chatMessage(c *category) string {
	h := drawHand(w.r, true)
	said := w.request(c, true)
	if w.order != "" && !w.orderShown {
		said = w.placeOrder(said)
	}
	if w.chance(0.4) {
		said[0] = w.any("hello") + choose(w.r, " ", ", ", ", ", "! ") + said[0]
	}
	if w.chance(0.2) {
		said = append(said, w.any("thanks"))
	}
	return h.write(w.r, said)
}

// placeOrder names the order in a fragment of its own.
func (w *writer) placeOrder(said []string) []string {
	w.orderShown = true
	form := choose(w.r, "order ", "order number: ", "order #", "my order number is ", "it's order ", "order no. ", "", "order: ", "ref ",
		"the order is ")
	if w.chance(0.3) {
		return append([]string{form + w.order}, said...)
	}
	return append(said, form+w.order)
}

// mail writes a message with the trappings of a mail: subject, greeting, closing, signature, and sometimes the mail that
// it answers.
func (w *writer) mail(c *category) string {
	h := drawHand(w.r, false)
	quoted := w.chance(0.17)
	inQuote := quoted && w.order != "" && w.chance(0.4)
	subject := ""
	if w.chance(0.4) {
		subject = w.subject(c, quoted)
	}
	if inQuote {
		w.orderShown = true
	}
	said := w.request(c, false)
	if w.order != "" && !w.orderShown {
		said = w.placeOrder(said)
	}
	var b strings.Builder
	if subject != "" {
		b.WriteString("Subject: " + subject + "\n\n")
	}
	if w.chance(0.75) {
		b.WriteString(h.setCase(w.any("hello")) + choose(w.r, ",", ",", "", "!") + choose(w.r, "\n\n", "\n"))
	}
	cut := len(said)
	if cut > 3 && w.chance(0.5) {
		cut = 1 + w.r.IntN(cut-1)
	}
	b.WriteString(h.write(w.r, said[:cut]))
	if cut < len(said) {
		b.WriteString("\n\n" + h.write(w.r, said[cut:]))
	}
	w.signOff(&b, h)
	if quoted {
		w.quote(&b, inQuote)
	}
	return b.String()
}

func (w *writer) subject(c *category, reply bool) string {
	text := ""
	switch {
	case w.order != "" && !w.orderShown && w.chance(0.4):
		w.orderShown = true
		text = choose(w.r, "order ", "Order #", "my order ", "Order ") + w.order
	case w.chance(0.5):
		text = w.one(c.noun)
	default:
		text = w.any("subject")
	}
	if reply {
		return "Re: " + text
	}
	return text
}

func (w *writer) signOff(b *strings.Builder, h hand) {
	if w.chance(0.7) {
		b.WriteString(choose(w.r, "\n\n", "\n") + h.setCase(w.any("thanks")) + choose(w.r, ",\n", "\n", ", "))
		b.WriteString(h.setCase(w.any("first")))
		if w.chance(0.6) {
			b.WriteString(" " + h.setCase(w.any("last")))
		}
	}
	switch at := w.r.Float64(); {
	case at < 0.08:
		b.WriteString("\n" + phone(w.r))
	case at < 0.16:
		b.WriteString("\n\nSent from my " + choose(w.r, "iPhone", "Android phone", "iPad", "mobile"))
	case at < 0.2:
		b.WriteString("\n" + w.any("last") + " " + choose(w.r, "Consulting", "Interiors", "GmbH", "Ltd", "& Sons") + ", " + w.any("city") +
			"\nTel " + phone(w.r))
	}
}

// quote adds the mail that the customer answers to: one of the shop's own, whatever it was about.
func (w *writer) quote(b *strings.Builder, withOrder bool) {
	lines := []string{hand{apostrophes: true, endMark: ".", join: " "}.write(w.r, []string{w.any("robot")})}
	if withOrder {
		lines = append([]string{choose(w.r, "Your order ", "Order ", "Your order number: ", "Order #") + w.order}, lines...)
	}
	when := date(w.r)
	switch w.r.IntN(3) {
	case 0:
		b.WriteString("\n\nOn " + when + ", Harbor & Pine <help@harborandpine.example> wrote:\n")
	case 1:
		b.WriteString("\n\n-----Original Message-----\nFrom: Harbor & Pine\nSent: " + when + "\n\n")
	default:
		b.WriteString("\n\n> ---- Harbor & Pine Support, " + when + " ----\n")
	}
	for _, line := range lines {
		b.WriteString("> " + line + "\n")
	}
}

// outside writes a message that is none of the shop's business, dressed like the others.
func (w *writer) outside() string {
	chat := w.chance(0.5)
	h := drawHand(w.r, chat)
	said := []string{w.expand(w.g.outside[w.r.IntN(len(w.g.outside))])}
	if w.chance(0.3) {
		said[0] = w.any("hello") + ", " + said[0]
	}
	if w.chance(0.2) {
		said = append(said, w.any("mood"))
	}
	var b strings.Builder
	b.WriteString(h.write(w.r, said))
	if !chat {
		w.signOff(&b, h)
	}
	return b.String()
}
