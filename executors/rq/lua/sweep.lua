-- needs: prelude queue rate_limit result complete promote requeue
-- What any worker does every few seconds for all. Argument: {reap: 1 or 0, queues of the worker, or nothing}. Returns how many
-- jobs were put back.
-- One script is one atomic step, so it needs no lock; where there is nothing to do it costs some microseconds a queue.
local reap, own = unpack(cmsgpack.unpack(ARGV[1]))
local returned = 0
begin_writing()

-- Workers of ours that are dead
if reap == 1 then
  for _, worker in ipairs(call('ZRANGEBYSCORE', K_LEASES, '-inf', now, 'LIMIT', 0, 20)) do
    returned = returned + put_back(worker, true)
    call('DEL', K_WORKER .. worker)
  end
end

-- Jobs that nothing started in time
local function expire(id)
  local j = call('HMGET', K_JOB .. id, F_status, F_origin, F_expires_in, F_attempts)
  if num(j[4]) == 0 and (j[1] == S_QUEUED or j[1] == S_SCHEDULED or j[1] == S_DEFERRED) then
    withdraw(id, j[2], j[1])
    close(id, 'E' .. (j[3] or ''), T_EXPIRED)
  end
end
for _, id in ipairs(call('ZRANGEBYSCORE', K_EXPIRIES, '-inf', now, 'LIMIT', 0, 200)) do
  pcall(expire, id)
  call('ZREM', K_EXPIRIES, id)
end

-- A job in the hands of a stock worker that died: RQ's rule for its own, ours for ours
local function abandoned(composite, queue)
  local id = string.match(composite, '^([^:]*):')
  call('ZREM', K_WIP .. queue, composite)
  if not id then return end -- never an execution
  call('DEL', K_EXECUTION .. composite)
  local j = call('HMGET', K_JOB .. id, F_status, F_task, F_crashes, F_max_crashes, F_priority, F_retries_left,
    F_rate_limit_key)
  if j[1] ~= S_STARTED then return end
  local crashes = num(j[3]) + 1
  call('HSET', K_JOB .. id, F_crashes, crashes, F_rare, 1)
  if not j[2] and num(j[6]) <= 0 or crashes >= (tonumber(j[4] or 3) or 3) then
    close(id, 'C' .. crashes, T_CRASHED)
  else
    if not j[2] then call('HSET', K_JOB .. id, F_retries_left, math.floor(num(j[6])) - 1) end
    enqueue(queue, id, j[5], true)
    returned = returned + 1
  end
  if j[7] and call('HGET', K_JOB .. id, F_status) ~= S_QUEUED then release_slot(id, j[7]) end
end

-- A job that a stock worker popped and then did not start: it stays a minute in the intermediate list at most
local function stranded(queue)
  local list = K_QUEUE .. queue .. ':intermediate'
  for _, id in ipairs(call('LRANGE', list, 0, 99)) do
    local seen = list .. ':first_seen:' .. id
    local status = call('HGET', K_JOB .. id, F_status)
    if not status then
      call('LREM', list, 1, id)
    elseif status == S_QUEUED and not call('SET', seen, stamp, 'NX', 'EX', 86400) then
      if now - num(call('GET', seen)) > 60 then
        call('LREM', list, 1, id)
        call('DEL', seen)
        enqueue(queue, id, call('HGET', K_JOB .. id, F_priority), true)
        returned = returned + 1
      end
    end
  end
end

-- Dependents whose needs were settled by a stock client or worker that failed, cancelled or removed them
local function settled(queue)
  local deferred = K_DEFERRED .. queue
  local count = call('ZCARD', deferred)
  if count == 0 then return end
  local first = count > 100 and math.floor(now * 1000) % (count - 99) or 0
  for _, id in ipairs(call('ZRANGE', deferred, first, first + 99)) do
    local j = call('HMGET', K_JOB .. id, F_task, F_status)
    if not j[2] then
      call('ZREM', deferred, id)
    elseif j[1] and j[2] == S_DEFERRED then
      for _, need in ipairs(call('SMEMBERS', K_DEPENDENCIES .. id .. ':dependencies')) do
        local status = call('HGET', K_JOB .. need, F_status)
        if not status then
          call('SADD', K_JOB .. need .. ':dependents', id)
          release(need)
          call('DEL', K_JOB .. need .. ':dependents')
        elseif status == S_FAILED or status == S_STOPPED or status == S_CANCELED or status == S_FINISHED then
          release(need)
        end
      end
    end
  end
end

-- A part of a sorted set, another one each time where it is large
local function some_of(key, count)
  local first = math.max(0, call('ZCARD', key) - count)
  if first > 0 then first = math.floor(now * 1000) % (first + 1) end
  return call('ZRANGE', key, first, first + count - 1)
end

local function tidy(queue)
  promote(queue)
  if reap == 1 then
    for _, composite in ipairs(call('ZRANGEBYSCORE', K_WIP .. queue, '-inf', now, 'LIMIT', 0, 100)) do
      abandoned(composite, queue)
    end
    stranded(queue)
  end
  settled(queue)
  for _, id in ipairs(call('ZRANGE', K_READY .. queue, 0, 99)) do
    call('ZREM', K_READY .. queue, id)
    local j = call('HMGET', K_JOB .. id, F_status, F_priority, F_at_front, F_rate_limit_key, F_rate_limit_concurrency)
    if j[1] == S_READY then
      if j[4] and j[5] then enqueue_limited(id, j[4], j[5]) else enqueue(queue, id, j[2], at_front(j[3])) end
    end
  end
  if call('EXISTS', K_QUEUE .. queue) == 0 then call('DEL', K_PRIORITIES .. queue) end
  call('ZREMRANGEBYSCORE', K_FINISHED .. queue, 0, now)
  call('ZREMRANGEBYSCORE', K_FAILED .. queue, 0, now)
  for _, id in ipairs(some_of(K_CANCELED .. queue, 50)) do
    local left = call('TTL', K_JOB .. id)
    if left == -2 then
      call('ZREM', K_CANCELED .. queue, id)
    elseif left == -1 then -- a stock client has cancelled it, and would keep it for ever
      keep(id, kept_for(call('HGET', K_JOB .. id, F_result_ttl)))
    end
  end
end

-- RQ's groups forget jobs that are not kept any more, and go with the last of them. Source: rq 3.0.0 group.py cleanup.
local function tidy_groups()
  for _, name in ipairs(call('SRANDMEMBER', K_GROUPS, 10)) do
    for _, id in ipairs(call('SRANDMEMBER', K_GROUP .. name, 100)) do
      if call('EXISTS', K_JOB .. id) == 0 then call('SREM', K_GROUP .. name, id) end
    end
    if call('EXISTS', K_GROUP .. name) == 0 then call('SREM', K_GROUPS, name) end
  end
end

-- A damaged key of one queue must not keep the others from being swept
local known = {}
for _, key in ipairs(call('SMEMBERS', K_QUEUES)) do known[string.sub(key, #K_QUEUE + 1)] = true end
for _, queue in ipairs(own or {}) do known[queue] = true end -- RQ forgets a queue whose list is deleted
for queue in pairs(known) do pcall(tidy, queue) end
pcall(tidy_groups)
for _, wkey in ipairs(call('SMEMBERS', K_WORKERS)) do
  if call('EXISTS', wkey) == 0 then call('SREM', K_WORKERS, wkey) end
end
send_news()
return returned
