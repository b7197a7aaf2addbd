-- The health of a ServiceDatabase for Argo CD. Uses nothing but Lua's base library.
local health = { status = "Progressing", message = "waiting for the operator" }

local status = obj.status or {}
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "being deleted; waiting for " .. (status.deletionWaitsFor or "the operator")
  return health
end
-- -1 before the operator's first status, and an older generation after a change of spec.
if status.observedGeneration ~= obj.metadata.generation then
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
-- Reasons of an outage that is expected.
local planned = { Initializing = true, Restoring = true, Upgrading = true }
local stalled, ready, available = conditions.Stalled, conditions.Ready, conditions.DatabaseAvailable

if stalled ~= nil and stalled.status == "True" then
  health.message = stalled.message
  if stalled.reason == "Paused" or stalled.reason == "ApprovalRequired" then
    health.status = "Suspended"
  else
    health.status = "Degraded"
  end
elseif ready ~= nil and ready.status == "True" then
  health.status = "Healthy"
  health.message = ready.message
elseif available ~= nil and available.status == "False" and not planned[available.reason] then
  health.status = "Degraded"
  health.message = available.message
elseif ready ~= nil then
  health.message = ready.message
end
return health
