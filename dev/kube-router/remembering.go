package main

import (
	"strings"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/utils"
)

// remembering caches the answers on the controller's fixed chains and rules. The
// controller asks for each of them, in a process of its own, at every change of
// any pod: some forty processes, on each node, where five do the work. Its calls come
// from one goroutine.
type remembering struct {
	utils.IPTablesHandler
	answers map[string]any
	since   time.Time
}

// remembered returns the answer to a question of the last syncPeriod, or asks.
func remembered[T any](r *remembering, ask func() (T, error), question ...string) (T, error) {
	if time.Since(r.since) > syncPeriod {
		r.forget()
	}
	key := strings.Join(question, "\x00")
	if answer, known := r.answers[key]; known {
		return answer.(T), nil
	}
	answer, err := ask()
	if err == nil {
		r.answers[key] = answer
	}
	return answer, err
}

func (r *remembering) forget() {
	r.answers, r.since = map[string]any{}, time.Now()
}

func (r *remembering) Exists(table, chain string, rule ...string) (bool, error) {
	ask := func() (bool, error) { return r.IPTablesHandler.Exists(table, chain, rule...) }
	return remembered(r, ask, append([]string{"rule", table, chain}, rule...)...)
}

func (r *remembering) ChainExists(table, chain string) (bool, error) {
	ask := func() (bool, error) { return r.IPTablesHandler.ChainExists(table, chain) }
	return remembered(r, ask, "chain", table, chain)
}

func (r *remembering) List(table, chain string) ([]string, error) {
	ask := func() ([]string, error) { return r.IPTablesHandler.List(table, chain) }
	return remembered(r, ask, "list", table, chain)
}

func (r *remembering) AppendUnique(table, chain string, rule ...string) error {
	ask := func() (bool, error) { return true, r.IPTablesHandler.AppendUnique(table, chain, rule...) }
	_, err := remembered(r, ask, append([]string{"append", table, chain}, rule...)...)
	return err
}

func (r *remembering) Insert(table, chain string, position int, rule ...string) error {
	r.forget()
	return r.IPTablesHandler.Insert(table, chain, position, rule...)
}

func (r *remembering) Delete(table, chain string, rule ...string) error {
	r.forget()
	return r.IPTablesHandler.Delete(table, chain, rule...)
}

func (r *remembering) NewChain(table, chain string) error {
	r.forget()
	return r.IPTablesHandler.NewChain(table, chain)
}
