// Vault from its Go module, whole: the `minimal` build tag would leave out the
// Kubernetes auth method and the database engine.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() { os.Exit(command.Run(os.Args[1:])) }
