package specialist

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"occam/internal/task"
)

// TestSpansOfManyKinds learns e-mails, dates, amounts and normalised phone numbers from the same mails.
func TestSpansOfManyKinds(t *testing.T) {
	fields := []task.Field{
		{Name: "mail", Kind: task.Span, Nullable: true, Normalize: "lower"},
		{Name: "date", Kind: task.Span, Nullable: true},
		{Name: "amount", Kind: task.Span, Nullable: true},
		{Name: "phone", Kind: task.Span, Nullable: true, Normalize: "digits"},
	}
	rng := rand.New(rand.NewPCG(2, 5))
	months := []string{"March", "May", "June", "July"}
	var examples []task.Example
	for range 300 {
		mail, date := fmt.Sprintf("Ann.%d@mail%d.com", rng.IntN(90), rng.IntN(9)), fmt.Sprintf("%s %d, 20%02d", months[rng.IntN(4)], 1+rng.IntN(28), rng.IntN(30))
		amount, phone := fmt.Sprintf("$%d.%02d", rng.IntN(900), rng.IntN(100)), fmt.Sprintf("%03d-%03d-%04d", rng.IntN(1000), rng.IntN(1000), rng.IntN(10000))
		labels := task.Output{"mail": task.Null, "date": task.Null, "amount": task.Null, "phone": task.Null}
		parts := []string{"hello,"}
		if rng.IntN(3) > 0 {
			parts, labels["mail"] = append(parts, "write to "+mail+" please."), task.String(strings.ToLower(mail))
		}
		if rng.IntN(3) > 0 {
			parts, labels["date"] = append(parts, "I bought it on "+date+" in a shop."), task.String(date)
		}
		if rng.IntN(3) > 0 {
			parts, labels["amount"] = append(parts, "I paid "+amount+" for it."), task.String(amount)
		}
		if rng.IntN(3) > 0 {
			parts, labels["phone"] = append(parts, "My number is "+phone+"."), task.String(strings.ReplaceAll(phone, "-", ""))
		}
		rng.Shuffle(len(parts), func(a, b int) { parts[a], parts[b] = parts[b], parts[a] })
		examples = append(examples, task.Example{Text: strings.Join(parts, " "), Labels: labels})
	}
	m := train(t, fields, examples[:200], Options{Warn: func(w Warning) { t.Errorf("warning: %+v", w) }})
	wrong := make([]int, len(fields))
	var p task.Prediction
	for _, e := range examples[200:] {
		m.Predict(e.Text, &p)
		for f := range fields {
			if !p.Values[f].Equal(e.Labels[fields[f].Name]) {
				wrong[f]++
				t.Logf("%s of %q: %s", fields[f].Name, e.Text, p.Values[f].AppendJSON(nil))
			}
		}
	}
	for f, n := range wrong {
		if n > 3 {
			t.Errorf("%s: %d of 100 are wrong", fields[f].Name, n)
		}
	}
}

// TestAnyScript trains on languages that share no letters, in one model and without being told.
func TestAnyScript(t *testing.T) {
	fields := []task.Field{{Name: "topic", Kind: task.Category, Values: []string{"refund", "delivery", "login"}}}
	texts := map[string][]string{
		"refund": {"Ich möchte mein Geld zurück", "Bitte erstatten Sie den Betrag", "Quiero que me devuelvan el dinero", "¿Cuándo recibiré el reembolso?",
			"返金してください", "お金を返してほしい", "أريد استرداد أموالي", "متى أستلم المبلغ المسترد؟"},
		"delivery": {"Wo ist mein Paket?", "Die Lieferung ist noch nicht da", "¿Dónde está mi paquete?", "El envío no ha llegado",
			"荷物はどこですか", "配達がまだ届きません", "أين طردي؟", "لم تصل الشحنة بعد"},
		"login": {"Ich kann mich nicht anmelden", "Mein Passwort geht nicht", "No puedo iniciar sesión", "He olvidado mi contraseña",
			"ログインできません", "パスワードを忘れました", "لا أستطيع تسجيل الدخول", "نسيت كلمة المرور"},
	}
	var examples []task.Example
	for _, topic := range fields[0].Values {
		for _, text := range texts[topic] {
			examples = append(examples, task.Example{Text: text, Labels: task.Output{"topic": task.String(topic)}})
		}
	}
	m := train(t, fields, examples, Options{})
	var p task.Prediction
	for text, topic := range map[string]string{
		"wo bleibt mein PAKET": "delivery", "mi contraseña no funciona": "login", "返金をお願いします": "refund", "أين الشحنة": "delivery",
		"パスワードが違います": "login", "devolver dinero": "refund", "\u200fأين\u200f طردي": "delivery",
	} {
		if m.Predict(text, &p); p.Values[0].Text() != topic {
			t.Errorf("%q: %s, want %s", text, p.Values[0].Text(), topic)
		}
	}
}

func TestCategoriesThatDifferByCaseOrSpaceStayApart(t *testing.T) {
	fields := []task.Field{{Name: "c", Kind: task.Category, Values: []string{"Refund", "refund", "refund "}}}
	var examples []task.Example
	for i := range 30 {
		word := []string{"alpha", "beta", "gamma"}[i%3]
		examples = append(examples, task.Example{Text: fmt.Sprint(word, " ", i), Labels: task.Output{"c": task.String(fields[0].Values[i%3])}})
	}
	m := train(t, fields, examples, Options{})
	var p task.Prediction
	for i, word := range []string{"alpha", "beta", "gamma"} {
		if m.Predict(word, &p); p.Values[0].Text() != fields[0].Values[i] {
			t.Errorf("%s: %q", word, p.Values[0].Text())
		}
	}
}

func TestRowsThatLackAField(t *testing.T) {
	fields, examples := tickets(200)
	for i := range examples {
		if i%2 == 0 {
			delete(examples[i].Labels, "topic")
		} else {
			delete(examples[i].Labels, "order")
		}
	}
	m := train(t, fields, examples, Options{})
	var p task.Prediction
	m.Predict("reset my password order 54321", &p)
	if p.Values[0].Text() != "login" || p.Values[3].Text() != "54321" {
		t.Errorf("%+v", p)
	}
}

// TestFiveHundredCategories beside a second category, in turns of a conversation, some of them of 10 kB.
func TestFiveHundredCategories(t *testing.T) {
	fields := []task.Field{{Name: "product", Kind: task.Category}, {Name: "mood", Kind: task.Category, Values: []string{"calm", "cross"}}}
	for c := range 500 {
		fields[0].Values = append(fields[0].Values, fmt.Sprintf("product %d", c))
	}
	var examples []task.Example
	for i := range 1000 {
		mood := fields[1].Values[i/500]
		text := fmt.Sprintf("user: I have a question\nassistant: which product?\nuser: the x%dy, %s", i%500, []string{"thank you kindly", "this is outrageous"}[i/500])
		if i%200 == 7 {
			text += strings.Repeat(" and so on and on", 600)
		}
		examples = append(examples, task.Example{Text: text, Labels: task.Output{"product": task.String(fields[0].Values[i%500]), "mood": task.String(mood)}})
	}
	m := train(t, fields, examples, Options{})
	wrong := [2]int{}
	var p task.Prediction
	for c := range 500 {
		m.Predict(fmt.Sprintf("user: hello\nassistant: which product is it?\nuser: it is the x%dy and this is outrageous", c), &p)
		if p.Values[0].Text() != fields[0].Values[c] {
			wrong[0]++
		}
		if p.Values[1].Text() != "cross" {
			wrong[1]++
		}
	}
	if wrong[0] > 25 || wrong[1] > 10 {
		t.Errorf("wrong of 500: %v", wrong)
	}
}
