// Package guarantee measures the promises of calibration and drift under repeated sampling, on real scores and real
// models. It holds tests only. A short version runs with go test; the tables in docs/guarantees.md are measured and
// written by
//
//	OCCAM_BENCH=guarantee go test -count=1 -timeout 3h -v ./internal/sim/guarantee
//
// The data are looked for in ../shared/data beside the repository, or in the folder that OCCAM_DATA names; without them
// the tests skip, saying so.
package guarantee
