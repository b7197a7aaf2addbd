# Everything starts here; `make` lists it.
#
# Works on a local cluster that `make cluster` builds from source (root on
# Debian 12; see dev/README.md), or on an existing one:
#   make demo CONTEXT=<kubectl context> IMAGE_REPOSITORY=<where it can pull from>

export CONTEXT
export NODES
export PROFILE
export IMAGE_REPOSITORY ?= localhost/servicedb
export IMAGE_TAG ?= dev

.DEFAULT_GOAL := help
# Steps that share one machine and print as they go.
.NOTPARALLEL:
.PHONY: help cluster images tools install demo test test-alerts test-tools test-stores test-gateway test-faults test-campaigns test-image bench soak changes fleet clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

cluster: ## a Kubernetes cluster with Vault (NODES=3: of three nodes); writes target/dev/kubeconfig and target/dev/vault.env
	@dev/cluster.sh

tools: ## kubectl, helm, vault (and kubectl-servicedb, when built) into target/dev/bin
	@dev/tools.sh

images: ## the operator's and the database's images, into the cluster
	@dev/build-images.sh

install: cluster images tools ## installs the operator by its Helm chart
	@dev/install.sh

demo: install ## five databases, from nothing, shown at work
	@dev/demo.sh

test: ## all tests; makes the cluster that they need
	@dev/test.sh

test-faults: install ## a fault at every mutating request, for hours; continues an interrupted run
	@dev/test-faults.sh

test-campaigns: install ## local cluster only, seals Vault and cuts nodes off: backups, upgrades, clients and scrapes through everything
	@dev/campaigns.sh

test-alerts: install ## every query of the dashboards and rules in a Prometheus, and faults that each make their alert fire
	@dev/test-alerts.sh

test-tools: ## other migration tools and Servicedb on the same folders; builds the tools from their registries
	@dev/test-tools.sh

test-stores: install ## local cluster only: backups in Google Cloud Storage and Azure Blob Storage, as their emulators have them
	@dev/test-stores.sh

test-gateway: ## the data gateway under an unmodified @supabase/postgrest-js, from npm, and Schemathesis, from PyPI
	@dev/test-gateway.sh

test-image: install ## local cluster only: a database moves from an image on Debian trixie to the present one, and PostGIS in its image
	@dev/test-image.sh

bench: install ## measures against the floor, and how long nobody can write when something breaks; prints tables
	@dev/bench.sh

soak: install ## a fault every 20 s for half an hour (SOAK_MINUTES, SOAK_SEED): is anything lost?
	@dev/outage.sh soak

changes: install ## the spec changed once a second, twenty times (CHANGES_RUNS, CHANGES_SEED): is anything lost, does it settle?
	@dev/outage.sh changes

fleet: install ## local cluster only, seals Vault: fifty databases come back after that; prints what Vault was sent
	@dev/fleet.sh

clean: ## ends the cluster and removes it; build caches stay
	@dev/clean.sh

distclean: clean ## also removes target/dev with its programs and image cache
	@rm -rf target/dev
