-- Part: the moment of this script by Redis' own clock: `now` in seconds, `stamp` as text, `iso` as RQ writes times.
local call = redis.call
local clock = call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local stamp = string.format('%d.%06d', clock[1], clock[2])

-- At the limit of memory Redis refuses a script whose first write could take more of it, and lets go on one that has
-- written already: so scripts that must work then begin with a write that takes none.
local function begin_writing() call('DEL', K_SCRATCH) end

-- What stands in a hash may be anything: a number between -2^53 and 2^53, or 0
local function num(text)
  local found = tonumber(text or 0) or 0
  return found >= -9007199254740992 and found <= 9007199254740992 and found or 0
end

-- How many seconds something is kept, as it stands in a hash: whole ones, ten years at most; below 0: for ever
local function kept_for(text)
  local seconds = tonumber(text or 604800) or 604800
  if seconds ~= seconds then return 604800 end
  return math.max(-1, math.min(math.ceil(seconds), 315360000))
end

-- A time from now on as text: Redis reads and orders whole numbers in text twice as fast as Lua's own
local function at(seconds) return string.format('%d', now + seconds) end

-- What stands there as JSON: a list, or an empty one
local function list_of(text)
  local fine, found = pcall(cjson.decode, text or '[]')
  return fine and type(found) == 'table' and found or {}
end

-- The ids that stand there as a list in JSON, without what can be none
local function ids_of(text)
  local ids = {}
  for _, entry in ipairs(list_of(text)) do
    if type(entry) == 'string' then ids[#ids + 1] = entry end
  end
  return ids
end

-- Source of the calendar: "days_from_civil" turned round, Howard Hinnant, chrono-compatible date algorithms.
local function as_iso(seconds, micros)
  local floor = math.floor
  local z = floor(seconds / 86400) + 719468
  local rest = seconds % 86400
  local era = floor(z / 146097)
  local doe = z - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local mp = floor((5 * doy + 2) / 153)
  local day = doy - floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ',
    year, month, day, floor(rest / 3600), floor(rest % 3600 / 60), rest % 60, micros)
end
local iso = as_iso(tonumber(clock[1]), tonumber(clock[2]))

