-- needs: prelude left
-- What there is yet for a worker whose claim has brought nothing. Argument: {queues, its nonce if it has
--   refused jobs, else ''}. Returns {busy: 1 or 0, scheduled, of which were started before, due in so many seconds: the first of these, the last}; see Membership.remains.
local queues, nonce = unpack(cmsgpack.unpack(ARGV[1]))
local idle, looks = {0, 0, 0, '0', '0'}, 20000
local busy = {1, 0, 0, '0', '0'}

local function size(command, ...)
  local found = redis.pcall(command, ...)
  return type(found) == 'number' and found or 0
end

local function members(command, ...)
  local found = redis.pcall(command, ...)
  return found.err and {} or found
end

-- Whether something waits in a queue that this worker does not leave to others
local function has_work(queue)
  local list = K_QUEUE .. queue
  if nonce == '' then return size('LLEN', list) > 0 end
  for first = 0, 9500, 500 do
    local ids = members('LRANGE', list, first, first + 499)
    for _, id in ipairs(ids) do
      if not is_left(id, queue, nonce) then return true end
    end
    if #ids < 500 then return false end
  end
  return true
end

-- Whether one runs, or is served by a worker, of the jobs that a job waits for, directly or by way of others that wait
local suspended = call('EXISTS', K_SUSPENDED) == 1
local function is_served(id)
  local queue = redis.pcall('HGET', K_JOB .. id, F_origin)
  return not suspended and type(queue) == 'string' and size('SCARD', K_WORKERS_OF .. queue) > 0
    and size('SISMEMBER', K_PAUSED, queue) == 0
end

local seen = {}
local function waits_for_others(id)
  for _, need in ipairs(members('SMEMBERS', K_DEPENDENCIES .. id .. ':dependencies')) do
    if not seen[need] and looks > 0 then
      seen[need], looks = true, looks - 1
      local status = redis.pcall('HGET', K_JOB .. need, F_status)
      if status == S_STARTED or (status == S_QUEUED and is_served(need)) then return true end
      if status == S_DEFERRED and waits_for_others(need) then return true end
    end
  end
  return false
end

-- Whether one that runs holds the slot of a rate limit for which a job of these queues waits
local mine = {}
for _, queue in ipairs(queues) do mine[queue] = true end
local function waits_for_slot(key)
  for _, id in ipairs(members('ZRANGE', K_RATE .. key .. ':rate_limited', 0, 99)) do
    looks = looks - 1
    if mine[redis.pcall('HGET', K_JOB .. id, F_origin)] then
      for _, holder in ipairs(members('ZRANGE', K_RATE .. key .. ':allowed', 0, 99)) do
        if redis.pcall('HGET', K_JOB .. holder, F_status) == S_STARTED then return true end
      end
      return false
    end
  end
  return false
end

for _, queue in ipairs(queues) do
  local list = K_QUEUE .. queue
  if size('ZCARD', K_WIP .. queue) + size('LLEN', list .. ':intermediate') > 0 then return busy end
  if not suspended and size('SISMEMBER', K_PAUSED, queue) == 0 then
    if size('ZCARD', K_READY .. queue) > 0 or has_work(queue) then return busy end
    if size('ZCOUNT', K_SCHEDULED .. queue, '-inf', now) > 0 then return busy end
  end
end
for _, queue in ipairs(queues) do
  for _, id in ipairs(members('ZRANGE', K_DEFERRED .. queue, 0, 9999)) do
    if waits_for_others(id) then return busy end
  end
end
for _, key in ipairs(members('SMEMBERS', K_RATE_KEYS)) do
  if looks > 0 and waits_for_slot(key) then return busy end
end

local first, last
for _, queue in ipairs(queues) do
  local entries = members('ZRANGE', K_SCHEDULED .. queue, 0, 9999, 'WITHSCORES')
  idle[2] = idle[2] + size('ZCARD', K_SCHEDULED .. queue)
  for n = 1, #entries, 2 do
    if num(redis.pcall('HGET', K_JOB .. entries[n], F_attempts) or 0) > 0 then
      local due = tonumber(entries[n + 1]) - now
      idle[3], first, last = idle[3] + 1, math.min(first or due, due), math.max(last or due, due)
    end
  end
end
idle[4], idle[5] = string.format('%.3f', first or 0), string.format('%.3f', last or 0)
return idle
