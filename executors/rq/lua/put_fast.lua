-- Part: the put of jobs of which none is there and nothing rare is said, before anything is made for the other ones.
local nonce, any_rare, jobs, needed = unpack(cmsgpack.unpack(ARGV[1]))
local refusal = refuse_unless_allowed(needed)
if refusal then return refusal end

local function write(id, fields, status, ...)
  local n = #fields
  fields[n + 1], fields[n + 2] = F_created_at, iso
  fields[n + 3], fields[n + 4] = F_enqueued_at, iso
  fields[n + 5], fields[n + 6] = F_status, status
  for i, more in ipairs({...}) do fields[n + 6 + i] = more end
  call('HSET', K_JOB .. id, unpack(fields))
end

local function give(id, queue, fields, worker, base)
  local token, wkey, known = base .. '00000000', K_WORKER .. worker, {}
  for i = 1, #fields, 2 do known[fields[i]] = tostring(fields[i + 1]) end
  local told = {known[F_data], known[F_task], known[F_result_ttl], known[F_failure_ttl], known[F_reply]}
  -- First what can be of another kind, so that no half job is left
  local composite = id .. ':' .. token
  call('ZADD', K_WIP .. queue, alive, composite)
  call('SADD', wkey .. ':executions', composite)
  write(id, fields, S_STARTED, F_started_at, iso, F_last_heartbeat, iso, F_worker_name, worker, F_attempts, '1')
  execution(id, token, worker)
  call('EXPIRE', wkey .. ':executions', T_HELD)
  call('HSET', wkey, F_state, 'busy', F_idle, '')
  call('PUBLISH', K_HANDOFF .. worker, cmsgpack.pack({base, stamp, entry_of(id, token, queue, told, 0)}))
end

-- Hand a job to a worker that is registered at its queue: it starts in this moment, and the worker need not ask for it.
-- Not where others wait before it, nor while something is paused. Returns whether that was done.
local function hand_off(id, queue, fields)
  local registered = K_IDLE .. queue
  local worker = call('SRANDMEMBER', registered)
  if not worker then return false end
  if call('EXISTS', K_JOB .. id, K_QUEUE .. queue, K_PRIORITIES .. queue, K_SUSPENDED, K_PAUSED) > 0 then return false end
  call('SADD', K_QUEUES, K_QUEUE .. queue) -- first, see begin_writing
  while worker do
    local base, till = string.match(call('HGET', K_WORKER .. worker, F_idle) or '', '^(%S+) (%S+)$')
    if base and tonumber(till) > now and call('PUBSUB', 'NUMSUB', K_HANDOFF .. worker)[2] > 0 then
      give(id, queue, fields, worker, base)
      return true
    end
    call('SREM', registered, worker) -- it has got something since, or does not listen, or may be dead
    worker = call('SRANDMEMBER', registered)
  end
  return false
end
if any_rare == 0 and #jobs == 1 and hand_off(unpack(jobs[1])) then return 0 end

-- Which ids are there already, and which queues have priorities
local keys, lists, plain = {}, {}, any_rare == 0
for _, job in ipairs(jobs) do
  local id, queue = job[1], job[2]
  local ids = lists[queue]
  if ids == nil then
    ids = {}
    lists[queue] = ids
    keys[#keys + 1] = K_PRIORITIES .. queue
  end
  ids[#ids + 1] = id
  keys[#keys + 1] = K_JOB .. id
end
for first = 1, #keys, 5000 do
  plain = plain and call('EXISTS', unpack(keys, first, math.min(first + 4999, #keys))) == 0
end
if plain then
  for queue in pairs(lists) do call('SADD', K_QUEUES, K_QUEUE .. queue) end
  -- The lists first: one of another kind stops it before there is half a job
  for queue, ids in pairs(lists) do
    for first = 1, #ids, 5000 do
      call('RPUSH', K_QUEUE .. queue, unpack(ids, first, math.min(first + 4999, #ids)))
    end
  end
  for _, job in ipairs(jobs) do write(job[1], job[3], S_QUEUED) end
  return 0
end

