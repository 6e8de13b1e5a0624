-- Part: jobs of a worker that is gone return to the front of their queues.
--   counted: its worker died; else the attempt is taken back.

-- What its worker's death means for a job: 'crash', 'suspect' or 'none'; see `blame` in
-- taskq/worker_session.py. The record of the execution tells of an older worker that it has begun.
local function blame(composite, token, told, crashes, limit, suspect)
  if told == token or call('HGET', K_EXECUTION .. composite, F_begun) then return 'crash' end
  if told == '-' .. token then return 'none' end
  if crashes >= limit - 1 then return 'none' end
  return (suspect or crashes > 0) and 'crash' or 'suspect'
end

local function put_back_one(composite, counted)
  local id, token = string.match(composite, '^([^:]*):(.*)$')
  local j = call('HMGET', K_JOB .. id, F_origin, F_task, F_attempts, F_crashes, F_max_crashes, F_priority,
    F_retries_left, F_rate_limit_key, F_suspect, F_told)
  if call('ZREM', K_WIP .. (j[1] or ''), composite) == 0 then return 0 end
  local returned, limit = 0, tonumber(j[5] or 3) or 3
  local found = counted and blame(composite, token, j[10], num(j[4]), limit, j[9]) or 'none'
  call('DEL', K_EXECUTION .. composite, K_EXECUTIONS .. id)
  local died = found == 'crash'
  local crashes = num(j[4]) + (died and 1 or 0)
  call('HSET', K_JOB .. id, F_attempts, num(j[3] or 1) - (found == 'none' and 1 or 0), F_crashes, crashes, F_rare, 1)
  if found == 'suspect' then call('HSET', K_JOB .. id, F_suspect, 1) end
  if died and crashes >= limit then
    close(id, 'C' .. crashes, T_CRASHED)
  elseif counted and call('HEXISTS', K_JOB .. id, F_cancel) == 1 then
    close(id, '', '')
  else
    enqueue(j[1], id, j[6], true)
    returned = 1
  end
  if j[8] and call('HGET', K_JOB .. id, F_status) ~= S_QUEUED then release_slot(id, j[8]) end
  return returned
end

local function put_back(worker, counted)
  local wkey, returned = K_WORKER .. worker, 0
  -- What holds something else keeps nobody: its jobs are found by the registry of started ones
  local held = redis.pcall('SMEMBERS', wkey .. ':executions')
  table.sort(held, function(left, right) return left > right end) -- ids grow with time: the oldest ends up foremost
  for _, composite in ipairs(held) do
    local fine, count = pcall(put_back_one, composite, counted)
    if fine then returned = returned + count end
  end
  call('DEL', wkey .. ':executions')
  call('ZREM', K_LEASES, worker)
  call('SREM', K_WORKERS, wkey)
  local queues = redis.pcall('HGET', wkey, F_queues)
  for queue in string.gmatch(type(queues) == 'string' and queues or '', '[^,]+') do
    redis.pcall('SREM', K_WORKERS_OF .. queue, wkey)
    redis.pcall('SREM', K_IDLE .. queue, worker)
  end
  return returned
end

