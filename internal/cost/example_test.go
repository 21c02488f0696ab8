package cost_test

import (
	"fmt"
	"math/rand/v2"
	"time"

	"occam/internal/cost"
)

func ExampleBook_Lookup() {
	at := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	price, ok := cost.Default().Lookup("openai", "gpt-4o-2024-08-06", at)
	fmt.Println(price.Cost(cost.Usage{Input: 500, Output: 50}, at), ok)
	_, ok = cost.Default().Lookup("openai", "gpt-4o-next", at)
	fmt.Println("an unknown model is priced:", ok)
	// Output:
	// $0.001750000 true
	// an unknown model is priced: false
}

func ExampleAnalyze() {
	scenario := cost.Scenario{
		Workload: cost.Workload{Volume: 50_000, InputTokens: 500, OutputTokens: 50,
			At: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)},
		Generalist: "gpt-4o", Host: "g5.xlarge", Assumptions: cost.DefaultAssumptions(),
	}
	a, err := cost.Analyze(cost.Default(), scenario, rand.New(rand.NewPCG(1, 0)))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(a.Best, a.Refused)
	// Output: all gpt-4o true
}

func ExampleCurve_BreakEven() {
	api := cost.Curve{PerRequest: 0.002}
	server := cost.Curve{Server: 720, ServersEach: 1.0 / (10 * 720 * 3600)} // one serves 10 requests a second
	volume, ok := server.BreakEven(api)
	fmt.Printf("%.0f %v\n", volume, ok)
	// Output: 360000 true
}
