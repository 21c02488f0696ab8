package specialist

import (
	"math"

	"occam/internal/task"
)

// calibrated is what turns raw scores into probabilities.
type calibrated struct {
	heads []head
	joint platt
	scope scope
}

// calibrate fits temperatures and the like on the out-of-fold scores of the examples that use accepts.
func (t *trainer) calibrate(use func(i int32) bool) calibrated {
	c := calibrated{heads: append([]head(nil), t.heads...)}
	for f := range t.fields {
		h, g := &c.heads[f], &t.targets[f]
		var rows []int
		for i, known := range g.known {
			if known && use(int32(i)) {
				rows = append(rows, i)
			}
		}
		switch t.fields[f].Kind {
		case task.Span:
			h.Platt = t.fitSpan(f, rows)
		case task.Labels:
			h.Platt = t.fitMembers(t.raw, f, rows)
		default:
			h.Temperature = t.fitTemperature(t.raw, f, rows)
			h.Platt = t.fitTop(f, h, rows)
		}
	}
	t.fitJoint(&c, use)
	return c
}

// fitTemperature minimises the negative log-likelihood of softmax(z/T) (Guo et al. 2017) by golden-section search on ln T.
func (t *trainer) fitTemperature(raw []float32, f int, rows []int) float64 {
	h, g := t.heads[f], &t.targets[f]
	loss := func(logT float64) (sum float64) {
		h.Temperature = math.Exp(logT)
		for _, i := range rows {
			odds := h.logOdds(t.columnsOf(raw, i, &h), int(g.columns[i][0]))
			sum += softplus(-odds)
		}
		return sum
	}
	return math.Exp(goldenSection(loss, math.Log(0.02), math.Log(5)))
}

// fitPrior fits softmax(sharp·z + tilt·ln share) to out-of-fold scores by Newton's method on the negative log-likelihood, which is
// convex, and returns tilt/sharp: both heads, trained to be wrong rarely, underrate rare classes, and this gives back what the labels
// say is missing (logit adjustment: Menon et al. 2021; there its strength is given, here it is learned).
func (t *trainer) fitPrior(f int) float32 {
	h, shares := &t.heads[f], t.logShares(f)
	rows := t.scoredRows(f)
	sharp, tilt := 1.0, 0.0
	for range 30 {
		gs, gt, hss, hst, htt := plattPrior*(sharp-1), plattPrior*tilt, plattPrior, 0., plattPrior
		for _, i := range rows {
			z := t.columnsOf(t.raw, i, h)
			m := softmaxMoments(z, shares, sharp, tilt)
			truth := t.targets[f].columns[i][0]
			gs, gt = gs+m.z-float64(z[truth]), gt+m.share-float64(shares[truth])
			hss, hst, htt = hss+m.zz-m.z*m.z, hst+m.zShare-m.z*m.share, htt+m.shareShare-m.share*m.share
		}
		det := hss*htt - hst*hst
		if det < 1e-12 {
			break
		}
		ds, dt := clamp((htt*gs-hst*gt)/det, sharp/2), clamp((hss*gt-hst*gs)/det, .5)
		sharp, tilt = sharp-ds, tilt-dt
		if math.Abs(ds)+math.Abs(dt) < 1e-6 {
			break
		}
	}
	return float32(clamp(tilt/sharp, 1))
}

// tiltMoments are means under softmax(sharp·z + tilt·share).
type tiltMoments struct{ z, share, zz, zShare, shareShare float64 }

func softmaxMoments(z, shares []float32, sharp, tilt float64) (m tiltMoments) {
	top := math.Inf(-1)
	for c := range z {
		top = max(top, sharp*float64(z[c])+tilt*float64(shares[c]))
	}
	total := 0.0
	for c := range z {
		x, s := float64(z[c]), float64(shares[c])
		p := math.Exp(sharp*x + tilt*s - top)
		total += p
		m.z, m.share = m.z+p*x, m.share+p*s
		m.zz, m.zShare, m.shareShare = m.zz+p*x*x, m.zShare+p*x*s, m.shareShare+p*s*s
	}
	m.z, m.share, m.zz, m.zShare, m.shareShare = m.z/total, m.share/total, m.zz/total, m.zShare/total, m.shareShare/total
	return m
}

func (t *trainer) columnsOf(raw []float32, i int, h *head) []float32 {
	return raw[i*t.columns+h.Offset : i*t.columns+h.Offset+h.Count]
}

// softplus is ln(1+e^x), without overflow.
func softplus(x float64) float64 {
	if x > 30 {
		return x
	}
	return math.Log1p(math.Exp(x))
}

// goldenSection finds the minimum of a function with one valley.
func goldenSection(f func(float64) float64, low, high float64) float64 {
	const ratio = 0.6180339887498949
	a, b := high-ratio*(high-low), low+ratio*(high-low)
	fa, fb := f(a), f(b)
	for high-low > 1e-3 {
		if fa < fb {
			high, b, fb = b, a, fa
			a = high - ratio*(high-low)
			fa = f(a)
		} else {
			low, a, fa = a, b, fb
			b = low + ratio*(high-low)
			fb = f(b)
		}
	}
	return (low + high) / 2
}

// fitTop corrects what a temperature, which is fitted to the probability of the right class, leaves wrong in that of the chosen one.
func (t *trainer) fitTop(f int, h *head, rows []int) platt {
	scores, right := make([]float64, len(rows)), make([]bool, len(rows))
	for k, i := range rows {
		z := t.columnsOf(t.raw, i, h)
		best := argmax(z)
		scores[k], right[k] = h.logOdds(z, best), int32(best) == t.targets[f].columns[i][0]
	}
	return fitPlatt(scores, right)
}

func (t *trainer) fitSpan(f int, rows []int) platt {
	var scores []float64
	var right []bool
	for _, i := range rows {
		scores = append(scores, t.guesses[f][i].logOdds)
		right = append(right, t.guesses[f][i].value.Equal(t.targets[f].truth[i]))
	}
	return fitPlatt(scores, right)
}

func (t *trainer) fitMembers(raw []float32, f int, rows []int) platt {
	var scores []float64
	var right []bool
	for _, i := range rows {
		z := t.columnsOf(raw, i, &t.heads[f])
		positive := map[int32]bool{}
		for _, c := range t.targets[f].columns[i] {
			positive[c] = true
		}
		for c := range z {
			scores, right = append(scores, float64(z[c])), append(right, positive[int32(c)])
		}
	}
	return fitPlatt(scores, right)
}

// plattPrior holds a fit to the line of slope 1 through 0, softly: where there are few examples, it is not turned by one of them.
const plattPrior = 0.1

// fitPlatt fits P(right) = sigmoid(slope·score + intercept) by Newton's method, with Platt's softened targets, which keep
// the fit finite where every row is right. The slope is kept from turning the ranking round.
func fitPlatt(scores []float64, right []bool) platt {
	yes := 0
	for _, r := range right {
		if r {
			yes++
		}
	}
	high, low := (float64(yes)+1)/(float64(yes)+2), 1/(float64(len(right)-yes)+2)
	p := platt{Slope: 1}
	for range 50 {
		gs, gi, hss, hsi, hii := plattPrior*(p.Slope-1), plattPrior*p.Intercept, plattPrior, 0., plattPrior
		for k, s := range scores {
			target := low
			if right[k] {
				target = high
			}
			q := sigmoid(p.logOdds(s))
			d, w := q-target, max(q*(1-q), 1e-9)
			gs, gi = gs+d*s, gi+d
			hss, hsi, hii = hss+w*s*s, hsi+w*s, hii+w
		}
		det := hss*hii - hsi*hsi
		if det < 1e-12 {
			break
		}
		ds, di := (hii*gs-hsi*gi)/det, (hss*gi-hsi*gs)/det
		ds, di = clamp(ds, 1), clamp(di, 2)
		p.Slope, p.Intercept = p.Slope-ds, p.Intercept-di
		if math.Abs(ds)+math.Abs(di) < 1e-9 {
			break
		}
	}
	p.Slope = max(p.Slope, 1e-3)
	return p
}

func clamp(x, limit float64) float64 { return min(max(x, -limit), limit) }

// fitJoint fits the probability that all labelled fields are right, and the moments of the out-of-scope score.
func (t *trainer) fitJoint(c *calibrated, use func(i int32) bool) {
	var scores, logits, unseen []float64
	var right []bool
	var p task.Prediction
	for i := range t.texts {
		if !use(int32(i)) {
			continue
		}
		labelled, ok := t.judge(c, i, &p)
		logits = append(logits, topLogit(c.heads, t.raw[i*t.columns:(i+1)*t.columns]))
		unseen = append(unseen, t.data.unseen[i])
		if labelled {
			scores, right = append(scores, p.Score), append(right, ok)
		}
	}
	c.joint = fitPlatt(scores, right)
	c.scope = scope{Logit: momentsOf(logits), Unseen: momentsOf(unseen)}
}

// judge fills p with the out-of-fold prediction of example i, Confidence and InScope excepted, and says whether every
// labelled field is right.
func (t *trainer) judge(c *calibrated, i int, p *task.Prediction) (labelled, right bool) {
	p.Values, p.FieldConfidence = p.Values[:0], p.FieldConfidence[:0]
	odds := make([]float64, 0, len(t.fields))
	right = true
	for f := range t.fields {
		var value task.Value
		var o float64
		if t.spans[f] != nil {
			value, o = t.guesses[f][i].value, c.heads[f].Platt.logOdds(t.guesses[f][i].logOdds)
		} else {
			value, o = c.heads[f].decide(t.fields[f].Kind, t.raw[i*t.columns:(i+1)*t.columns], setCache{})
		}
		p.Values, p.FieldConfidence = append(p.Values, value), append(p.FieldConfidence, sigmoid(o))
		odds = append(odds, o)
		if t.targets[f].known[i] {
			labelled = true
			right = right && value.Equal(t.targets[f].truth[i])
		}
	}
	p.Score = jointScore(odds)
	return labelled, right
}

func momentsOf(x []float64) moments {
	if len(x) == 0 {
		return moments{SD: 1}
	}
	sum, squares := 0.0, 0.0
	for _, v := range x {
		sum += v
	}
	mean := sum / float64(len(x))
	for _, v := range x {
		squares += (v - mean) * (v - mean)
	}
	return moments{Mean: mean, SD: math.Sqrt(squares / float64(len(x)))}
}

// predictions assembles the out-of-fold predictions; those of a fold are calibrated on the other folds.
func (t *trainer) predictions() []task.Prediction {
	out := make([]task.Prediction, len(t.texts))
	for fold := range int32(t.folds) {
		c := t.calibrate(func(i int32) bool { return t.fold[i] != fold })
		for i := range t.texts {
			if t.fold[i] != fold {
				continue
			}
			p := &out[i]
			t.judge(&c, i, p)
			p.Confidence = sigmoid(c.joint.logOdds(p.Score))
			p.InScope = c.scope.score(c.heads, t.raw[i*t.columns:(i+1)*t.columns], t.data.unseen[i])
		}
	}
	return out
}
