# The two commands of the README are `go run . demo` and `make test`. The others help developers.
SHELL := bash
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0
RACE := ./internal/store/... ./internal/engine/... ./internal/gateway/... ./internal/batch/... ./internal/lifecycle/... ./internal/sim/... ./internal/cascade/... ./internal/specialist/...

.PHONY: bench-backfill bench-calibration bench-million bench-crossfit test setup lint unit race chaos focus build bench bench-specialist bench-guarantee bench-gateway bench-data bench-ledger bench-dashboard pictures proof faults bench-training proof-data soak

test: setup lint unit race ## install what the tests need and run all of them

setup: ## PostgreSQL, Chromium and SDK packages, by name; what cannot be had makes its tests skip, saying so
	bash scripts/setup.sh

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt -w on these"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	GOOS=darwin go build ./...

unit:
	go test -timeout 20m ./...

race:
	go test -race -short -timeout 20m $(RACE)

chaos: ## kill -9 under load, a hundred times; the ledger against the provider's bill (about five minutes)
	OCCAM_CHAOS_KILLS=100 go test -count=1 -timeout 30m -v ./chaostest

focus: ## the FOCUS export against the FinOps Foundation's focus-validator (needs Python 3.13)
	test -x bin/focus/bin/focus-validator || { python3.13 -m venv bin/focus && bin/focus/bin/pip install -q --only-binary=:all: numpy pandas duckdb \
	polars pyarrow pandera jsonschema pyyaml sqlglot tabulate ddt graphviz multimethod pytz requests pydantic && \
	bin/focus/bin/pip install -q --no-deps focus-validator==2.2.1 pandasql; }
	OCCAM_FOCUS_VALIDATOR=$(CURDIR)/bin/focus go test -count=1 -run TestFOCUSValidator -v ./internal/finops

build:
	go build -trimpath -o bin/occam .

bench-specialist: ## accuracy, calibration, training time, size and prediction on public data by occam's own commands, in one table beside LinearSVC and fastText (some minutes)
	bash scripts/references-setup.sh
	OCCAM_BENCH=1 go test -count=1 -timeout 40m -run "TestTable|TestOrderIDs|TestWarmStartBanking77" -v ./internal/specialist
	go test -count=1 -timeout 10m -run '^$$' -bench 'BenchmarkDecode|BenchmarkPredict' -benchmem -v ./internal/specialist

bench-calibration: ## the ways to calibrate that docs/specialist.md compares, on draws of training files
	OCCAM_BENCH=1 go test -count=1 -timeout 30m -run TestCalibrationAblation -v ./internal/specialist

bench-million: ## train on 10,000, 100,000 and a million texts of 500 words, streamed from disk; accuracy (simulated), time and peak memory; 4 GB of disk, an hour or two
	OCCAM_BENCH=million go test -count=1 -timeout 6h -run TestMillion -v ./internal/lifecycle

bench-crossfit: ## how often the certificate of occam train --refit is broken, in 200 draws of each of three populations; writes docs/guarantees.md
	OCCAM_BENCH=crossfit go test -count=1 -timeout 3h -run TestCrossFitTable -v ./internal/sim/guarantee

bench: bench-specialist bench-guarantee bench-gateway bench-data bench-ledger bench-dashboard ## every table of the docs; hours on two cores

bench-guarantee: ## the promises under repeated sampling, drift, out-of-scope, teachers against truth; fails where a bar is missed
	OCCAM_BENCH=guarantee go test -count=1 -timeout 3h -v ./internal/sim/guarantee

proof: ## the life of a task with the real program, killed fifty times on the way; draws docs/pictures/proof-tickets.svg
	OCCAM_PROOF=50 OCCAM_PROOF_PICTURE=$(CURDIR)/docs/pictures go test -count=1 -timeout 1h -run 'TestProof$$' -v .

proof-data: ## the same on BANKING77 and ABCD, from ../shared/data
	OCCAM_PROOF_BANKING77=10 OCCAM_PROOF_ABCD=10 OCCAM_PROOF_PICTURE=$(CURDIR)/docs/pictures go test -count=1 -timeout 2h -run TestProofOnData -v .

bench-training: ## how long certified answers take while a model is trained beside them; poisoned labels and triggers (docs/lifecycle.md)
	OCCAM_BENCH=1 go test -count=1 -timeout 30m -run TestServingWhileTraining -v .
	OCCAM_BENCH=1 go test -count=1 -timeout 1h -run 'TestPoisonedLabels|TestTriggersAreFound' -v ./internal/lifecycle

bench-gateway: ## the data plane beside Go's own ReverseProxy, ledger on; ends by comparing the ledger with the provider's count
	OCCAM_BENCH=1 go test -count=1 -timeout 15m -run TestBenchGateway -v ./internal/gateway
	go test -run '^$$' -bench Backfill -benchtime 200000x -timeout 15m ./internal/batch

bench-backfill: ## a backfill of 100,000 tickets, killed three times on its way: lines a second, peak memory (some minutes)
	OCCAM_BACKFILL_LINES=100000 go test -count=1 -timeout 30m -run TestBackfillScale -v ./internal/batch

bench-data: ## the figures of docs/data_check.md, on ../shared/data
	OCCAM_BENCH=1 go test -count=1 -v -timeout 60m -run 'Banking77|CrossFit' ./internal/datacheck

faults: ## the gateway's faults at full size with their bounds in milliseconds; needs a machine of its own (some fifteen minutes)
	OCCAM_FAULTS=1 go test -count=1 -p 1 -timeout 40m -v -run 'F[0-9][0-9]|S[0-9][0-9]' . ./internal/batch ./internal/gateway ./internal/engine ./internal/openai

soak: ## an hour of mixed load: memory and p99 stay as they are; OCCAM_SOAK=8h for a night
	OCCAM_SOAK=$${OCCAM_SOAK:-1h} go test -count=1 -timeout 24h -run TestF33Soak -v ./internal/gateway

bench-dashboard: ## how long the pages take at a million rows, and what they allocate; the pages' norms of time in a browser (a quiet machine)
	OCCAM_LEDGER_ROWS=1000000 go test -count=1 -v -run MillionRows -timeout 1h ./internal/dashboard
	OCCAM_QUIET=1 go test -count=1 -v -run 'InABrowser|TimeOfUnknownNames' ./internal/dashboard

pictures: ## every page of the dashboard, for docs/dashboard.md
	go test -count=1 -run Screenshots ./internal/dashboard -screenshots $(CURDIR)/docs/pictures

bench-ledger: ## inserts, latency at 500 calls a second, queries at a million rows, every fault at full size (about half an hour)
	go test -run '^$$' -bench 'Paid|Free' ./internal/store/
	go test -run '^$$' -bench Paced -benchtime 5000x ./internal/store/
	OCCAM_MILLION=1 go test -v -run TestMillion -timeout 30m ./internal/store/
	OCCAM_KILLS=100 go test -v -timeout 60m ./internal/store/
