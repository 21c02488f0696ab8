package cost

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// An Assumption is a number that the analysis cannot know by itself: its median, the ends of the range that holds it in
// eight cases of ten, and where it comes from. Equal ends mean that it is taken as certain.
type Assumption struct {
	Value  float64 `json:"value"`
	Low    float64 `json:"low"`  // 10 % of the cases lie below
	High   float64 `json:"high"` // 10 % lie above
	Unit   string  `json:"unit"`
	Source string  `json:"source"`
}

// Assumptions holds every number that a break-even analysis takes for granted, each printed with the result and each open
// to override with Set. docs/economics.md has the table with the reasons.
type Assumptions struct {
	// People.
	EngineerUSDPerHour Assumption `json:"engineer_usd_per_hour"`
	SetupHoursHosted   Assumption `json:"setup_hours_hosted"`
	SetupHoursEmbedded Assumption `json:"setup_hours_embedded"`
	SetupHoursSwitch   Assumption `json:"setup_hours_switch"`
	UpkeepHosted       Assumption `json:"upkeep_hours_hosted"`
	UpkeepEmbedded     Assumption `json:"upkeep_hours_embedded"`
	UpkeepSwitch       Assumption `json:"upkeep_hours_switch"`
	AmortiseMonths     Assumption `json:"amortise_months"`

	// Machines.
	ServerHours      Assumption `json:"server_hours_per_month"`
	ServerOverhead   Assumption `json:"server_overhead_usd_per_month"`
	PeakFactor       Assumption `json:"peak_factor"`
	MaxUtilisation   Assumption `json:"max_utilisation"`
	SpareServers     Assumption `json:"spare_servers"`
	ColdStarts       Assumption `json:"cold_starts_per_month"`
	ColdStartSeconds Assumption `json:"cold_start_seconds"`
	FLOPSShare       Assumption `json:"share_of_peak_flops"`
	DecodeBatch      Assumption `json:"decode_batch"`
	HostedPerSecond  Assumption `json:"hosted_requests_per_second"`
	EmbeddedPerSec   Assumption `json:"embedded_requests_per_second"`
	SharedTasks      Assumption `json:"shared_tasks"`

	// Tokens.
	TunedInput   Assumption `json:"tuned_input_share"`
	TunedOutput  Assumption `json:"tuned_output_share"`
	CacheMinimum Assumption `json:"cache_minimum_tokens"`
	CacheHit     Assumption `json:"cache_hit_share"`
	TokenFactor  Assumption `json:"token_factor"`
	RetryShare   Assumption `json:"retry_share"`

	// Quality.
	CoverageEmbedded   Assumption `json:"coverage_embedded"`
	Coverage1B         Assumption `json:"coverage_llama_1b"`
	Coverage3B         Assumption `json:"coverage_llama_3b"`
	CoverageAPI        Assumption `json:"coverage_api_model"`
	AuditShare         Assumption `json:"audit_share"`
	AccuracyGeneralist Assumption `json:"accuracy_generalist"`
	AccuracySpecialist Assumption `json:"accuracy_specialist"`
	AccuracyCheap      Assumption `json:"accuracy_cheap_model"`
	WrongAnswerUSD     Assumption `json:"wrong_answer_usd"`

	// Training.
	TrainingUSD      Assumption `json:"training_usd_per_run"`
	Retrains         Assumption `json:"retrains_per_month"`
	Labels           Assumption `json:"labels_bought"`
	LabelUSD         Assumption `json:"label_usd"`
	LabelsPerRetrain Assumption `json:"labels_per_retrain"`

	// Prices to come.
	APIPriceFactor  Assumption `json:"api_price_factor"`
	APIPriceDecline Assumption `json:"api_price_decline_per_month"`
	HostPriceFactor Assumption `json:"host_price_factor"`
	VolumeFactor    Assumption `json:"volume_factor"`
}

// DefaultAssumptions are the values used where nothing was measured and nothing was said. Those whose source says
// "assumption" are judgements to be replaced by your own figures.
func DefaultAssumptions() Assumptions {
	ours := func(v, low, high float64, unit, why string) Assumption {
		return Assumption{v, low, high, unit, "assumption: " + why}
	}
	sure := func(v float64, unit, source string) Assumption { return Assumption{v, v, v, unit, source} }
	return Assumptions{
		EngineerUSDPerHour: ours(100, 60, 150, "USD/h", "a loaded rate; set yours"),
		SetupHoursHosted: ours(80, 40, 200, "h once", "serving, fine-tuning, evaluation and alerts for an own GPU "+
			"server"),
		SetupHoursEmbedded: ours(16, 4, 40, "h once", "a gateway in front of the app, a trained specialist, one "+
			"review of its errors"),
		SetupHoursSwitch: ours(16, 4, 40, "h once", "evaluating another API model and adapting the prompt"),
		UpkeepHosted:     ours(8, 4, 20, "h/month", "drivers, deploys, on-call, retraining of a GPU server"),
		UpkeepEmbedded:   ours(2, 0.5, 6, "h/month", "reading the audit, approving a retrained specialist"),
		UpkeepSwitch:     ours(0.5, 0, 2, "h/month", "watching a model somebody else may change"),
		AmortiseMonths:   sure(12, "months", "convention: one-off costs are spread over a year"),

		ServerHours: sure(730.5, "h/month", "365.25 days × 24 h / 12; the article uses 24 × 30 = 720"),
		ServerOverhead: ours(20, 5, 60, "USD/month per server", "disk, egress, load balancer, logs; not part of "+
			"the bill shown"),
		PeakFactor: ours(3, 2, 10, "peak / mean", "business-hours traffic; measured from recorded traffic "+
			"where there is some"),
		MaxUtilisation:   ours(0.7, 0.5, 0.85, "share", "load at the peak above which queues grow without bound"),
		SpareServers:     sure(0, "servers", "none: behind a router the generalist takes over; set 1 for a pair"),
		ColdStarts:       ours(2, 1, 10, "per month", "deploys and restarts; more on spot machines"),
		ColdStartSeconds: ours(300, 120, 600, "s", "boot a GPU machine, load the weights, warm up"),
		FLOPSShare: ours(0.3, 0.23, 0.5, "share",
			"published vLLM and TensorRT-LLM runs of 7-8B models reach 23-32 %; 50 % is the optimistic end"),
		DecodeBatch:     sure(64, "requests", "batch of the roofline estimate"),
		HostedPerSecond: sure(0, "requests/s per GPU", "0: use the roofline estimate; set what you measured"),
		EmbeddedPerSec: ours(500, 200, 2000, "requests/s per VM", "the gateway around the specialist is the limit, "+
			"not the model"),
		SharedTasks: ours(10, 3, 20, "tasks", "LoRA adapters that share one server"),

		TunedInput: ours(0.36, 0.3, 1, "share of the prompt", "a tuned model needs the text, not the instructions: "+
			"180 of 500"),
		TunedOutput:  ours(0.3, 0.3, 1, "share of the answer", "a tuned model writes the label only: 15 of 50"),
		CacheMinimum: sure(1024, "tokens", "shortest prefix that OpenAI caches; from memory, verify"),
		CacheHit:     ours(0.9, 0.5, 0.98, "share", "requests that find the prefix still cached"),
		TokenFactor:  ours(1, 0.9, 1.15, "×", "other tokenizers, longer tickets"),
		RetryShare:   ours(0, 0, 0.03, "share", "calls that are billed twice after a timeout"),

		CoverageEmbedded: ours(0.85, 0.6, 0.95, "share", "until occam train has measured it on your data"),
		Coverage1B:       ours(0.9, 0.7, 0.97, "share", "until occam eval has measured it on your data"),
		Coverage3B:       ours(0.95, 0.8, 0.99, "share", "until occam eval has measured it on your data"),
		CoverageAPI:      ours(0.8, 0.5, 0.95, "share", "of a cheap API or decision model in front of the generalist, until measured"),
		AuditShare: sure(0.01, "share", "occam's default: this share of the specialist's answers is checked "+
			"by the model behind it"),
		AccuracyGeneralist: ours(0.95, 0.8, 0.98, "share", "only weighs in when a wrong answer has a cost"),
		AccuracySpecialist: ours(0.95, 0.85, 0.98, "share", "of the answers that it gives; only weighs in when a "+
			"wrong answer has a cost"),
		AccuracyCheap:  ours(0.92, 0.74, 0.97, "share", "only weighs in when a wrong answer has a cost"),
		WrongAnswerUSD: sure(0, "USD", "not known: set what a misrouted ticket costs you"),

		TrainingUSD: ours(10, 5, 40, "USD per run", "about 2 hours of one A100, as in the article; the embedded "+
			"specialist trains for free"),
		Retrains: ours(1.0/3, 1.0/12, 1, "per month", "once a quarter, sooner under drift"),
		Labels: ours(1000, 300, 10_000, "labels once", "people check a sample; the other labels are the "+
			"generalist's recorded answers"),
		LabelUSD:         ours(0.08, 0.03, 0.3, "USD", "one simple classification by a person"),
		LabelsPerRetrain: ours(200, 50, 1000, "labels", "fresh sample checked before each retrained model goes live"),

		APIPriceFactor:  ours(1, 0.75, 1.1, "×", "API prices of the months to come against today's, for the same model"),
		APIPriceDecline: sure(0, "share/month", "0: today's prices stay; 0.05 halves them in about 14 months"),
		HostPriceFactor: ours(1, 0.6, 1.15, "×", "reservations and other regions against the list price"),
		VolumeFactor:    ours(1, 0.8, 1.25, "×", "next months' volume against this one"),
	}
}

type namedAssumption struct {
	name string
	*Assumption
}

// all lists the assumptions with their names, in the order of the struct.
func (a *Assumptions) all() []namedAssumption {
	return []namedAssumption{
		{"engineer_usd_per_hour", &a.EngineerUSDPerHour}, {"setup_hours_hosted", &a.SetupHoursHosted},
		{"setup_hours_embedded", &a.SetupHoursEmbedded}, {"setup_hours_switch", &a.SetupHoursSwitch},
		{"upkeep_hours_hosted", &a.UpkeepHosted}, {"upkeep_hours_embedded", &a.UpkeepEmbedded},
		{"upkeep_hours_switch", &a.UpkeepSwitch}, {"amortise_months", &a.AmortiseMonths},
		{"server_hours_per_month", &a.ServerHours}, {"server_overhead_usd_per_month", &a.ServerOverhead},
		{"peak_factor", &a.PeakFactor}, {"max_utilisation", &a.MaxUtilisation}, {"spare_servers", &a.SpareServers},
		{"cold_starts_per_month", &a.ColdStarts}, {"cold_start_seconds", &a.ColdStartSeconds},
		{"share_of_peak_flops", &a.FLOPSShare}, {"decode_batch", &a.DecodeBatch},
		{"hosted_requests_per_second", &a.HostedPerSecond}, {"embedded_requests_per_second", &a.EmbeddedPerSec},
		{"shared_tasks", &a.SharedTasks}, {"tuned_input_share", &a.TunedInput}, {"tuned_output_share", &a.TunedOutput},
		{"cache_minimum_tokens", &a.CacheMinimum}, {"cache_hit_share", &a.CacheHit}, {"token_factor", &a.TokenFactor},
		{"retry_share", &a.RetryShare}, {"coverage_embedded", &a.CoverageEmbedded}, {"coverage_llama_1b", &a.Coverage1B},
		{"coverage_llama_3b", &a.Coverage3B}, {"coverage_api_model", &a.CoverageAPI}, {"audit_share", &a.AuditShare}, {"accuracy_generalist",
			&a.AccuracyGeneralist},
		{"accuracy_specialist", &a.AccuracySpecialist}, {"accuracy_cheap_model", &a.AccuracyCheap},
		{"wrong_answer_usd", &a.WrongAnswerUSD}, {"training_usd_per_run", &a.TrainingUSD}, {"retrains_per_month",
			&a.Retrains},
		{"labels_bought", &a.Labels}, {"label_usd", &a.LabelUSD}, {"labels_per_retrain", &a.LabelsPerRetrain},
		{"api_price_factor", &a.APIPriceFactor}, {"api_price_decline_per_month", &a.APIPriceDecline},
		{"host_price_factor", &a.HostPriceFactor}, {"volume_factor", &a.VolumeFactor},
	}
}

// Set overrides one assumption by its name, as a certain value: the range collapses to it. The source is recorded.
func (a *Assumptions) Set(name string, value float64, source string) error {
	return a.SetRange(name, value, value, value, source)
}

// divisors are assumptions of which none can be zero.
var divisors = []string{"amortise_months", "server_hours_per_month", "max_utilisation", "share_of_peak_flops", "decode_batch", "embedded_requests_per_second",
	"shared_tasks"}

// SetRange overrides one assumption with a range that holds it in eight cases of ten.
func (a *Assumptions) SetRange(name string, low, value, high float64, source string) error {
	all := a.all()
	i := slices.IndexFunc(all, func(n namedAssumption) bool { return n.name == name })
	if i < 0 {
		var names []string
		for _, n := range all {
			names = append(names, n.name)
		}
		return fmt.Errorf("no assumption is called %q; the names are: %s", name, strings.Join(names, ", "))
	}
	limit := 1e12
	if strings.HasPrefix(all[i].Unit, "share") {
		limit = 1
	}
	if low == 0 && slices.Contains(divisors, name) {
		return fmt.Errorf("%s must be more than zero: other figures are divided by it", name)
	}
	if !(0 <= low && low <= value && value <= high && high <= limit) {
		return fmt.Errorf("%s: %g (from %g to %g) is not in order between 0 and %g", name, value, low, high, limit)
	}
	all[i].Value, all[i].Low, all[i].High, all[i].Source = value, low, high, source
	return nil
}

// z90 is the 90 % quantile of the standard normal distribution.
const z90 = 1.2815515655446004

// draw returns assumptions whose values are one joint sample, each drawn independently of the others.
func (a Assumptions) draw(rng *rand.Rand) Assumptions {
	for _, n := range a.all() {
		n.Value = n.at(rng.NormFloat64())
	}
	return a
}

// at is the value of an assumption z standard deviations from its median, on a curve through its three points: straight in
// logs, so that a range of ½ to 2 is symmetric; in log-odds for a share, so that it stays one; and straight where an end is
// zero or a whole.
func (a Assumption) at(z float64) float64 {
	end, side := a.Low, -z/z90
	if z > 0 {
		end, side = a.High, z/z90
	}
	share := strings.HasPrefix(a.Unit, "share")
	switch {
	case end == a.Value:
		return a.Value
	case share && inside(a.Value) && inside(end):
		x := logit(a.Value) + (logit(end)-logit(a.Value))*side
		return 1 / (1 + math.Exp(-x))
	case !share && a.Value > 0 && end > 0:
		return a.Value * math.Pow(end/a.Value, side)
	}
	v := math.Max(a.Value+(end-a.Value)*side, 0)
	if share {
		v = math.Min(v, 1)
	}
	return v
}

func inside(p float64) bool { return 0 < p && p < 1 }

func logit(p float64) float64 { return math.Log(p / (1 - p)) }
