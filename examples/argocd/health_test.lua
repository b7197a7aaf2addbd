-- Run with the Lua that Argo CD has:
-- go run github.com/yuin/gopher-lua/cmd/glua@v1.1.1 examples/argocd/health_test.lua
local script = assert(loadfile("examples/argocd/health.lua"))

local function condition(kind, status, reason)
  return { type = kind, status = status, reason = reason, message = kind .. " is " .. reason }
end

local function expect(status, message, case)
  obj = { metadata = { generation = 2, deletionTimestamp = case.deleted }, status = case.status }
  local health = script()
  assert(health.status == status, "expected " .. status .. ", got " .. health.status .. ": " .. health.message)
  assert(health.message == message, "expected " .. message .. ", got " .. health.message)
end

local function told(...)
  return { status = { observedGeneration = 2, conditions = { ... } } }
end

local serves, idle = condition("DatabaseAvailable", "True", "Available"), condition("Stalled", "False", "NotStalled")
local waiting = "waiting for the operator"
expect("Progressing", waiting, {})
expect("Progressing", waiting, { status = { observedGeneration = -1 } })
expect("Progressing", waiting, { status = { observedGeneration = 1, conditions = { condition("Ready", "True", "Ready") } } })
expect("Progressing", "Ready is Initializing",
  told(condition("Ready", "False", "Initializing"), idle, condition("DatabaseAvailable", "False", "Initializing")))
expect("Progressing", "Ready is RollingOut", told(condition("Ready", "False", "RollingOut"), idle, serves))
expect("Healthy", "Ready is Ready", told(condition("Ready", "True", "Ready"), idle, serves))
for _, reason in ipairs({ "Restoring", "Upgrading" }) do
  expect("Progressing", "Ready is " .. reason,
    told(condition("Ready", "False", reason), idle, condition("DatabaseAvailable", "False", reason)))
end
expect("Degraded", "DatabaseAvailable is NoPrimary",
  told(condition("Ready", "False", "NoPrimary"), idle, condition("DatabaseAvailable", "False", "NoPrimary")))
expect("Degraded", "Stalled is InvalidSpec",
  told(condition("Ready", "False", "InvalidSpec"), condition("Stalled", "True", "InvalidSpec"), serves))
for _, reason in ipairs({ "Paused", "ApprovalRequired" }) do
  expect("Suspended", "Stalled is " .. reason,
    told(condition("Ready", "False", reason), condition("Stalled", "True", reason), serves))
end
expect("Progressing", "being deleted; waiting for Vault",
  { deleted = "2026-01-01T00:00:00Z", status = { observedGeneration = 2, deletionWaitsFor = "Vault" } })
expect("Progressing", "being deleted; waiting for the operator", { deleted = "2026-01-01T00:00:00Z" })
print("the health script gives what is expected")
