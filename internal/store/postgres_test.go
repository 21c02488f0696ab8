package store_test

import (
	"testing"

	"occam/internal/store/storetest"
)

func TestPostgres(t *testing.T) {
	t.Parallel()
	server := storetest.StartPostgres(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(server.Log())
		}
	})
	storetest.Run(t, server.Backend())
}
