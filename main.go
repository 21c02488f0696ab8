// Occam is an OpenAI-compatible gateway that answers narrow, repetitive requests with the smallest model that is
// provably accurate enough, and sends the rest to the general model.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"occam/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
