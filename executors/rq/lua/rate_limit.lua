-- Part: RQ's rate limits. Source: rq 3.0.0 rate_limit.py, ACQUIRE_AND_ENQUEUE_SCRIPT and RELEASE_AND_ENQUEUE_SCRIPT.
local function fill_slots(key, concurrency)
  local allowed, waiting = K_RATE .. key .. ':allowed', K_RATE .. key .. ':rate_limited'
  while call('ZCARD', allowed) < concurrency do
    local popped = call('ZPOPMIN', waiting)
    if #popped == 0 then return end
    local id = popped[1]
    local found = call('HMGET', K_JOB .. id, F_origin, F_status, F_at_front)
    if found[1] and found[2] == S_RATE_LIMITED then
      call('ZADD', allowed, math.floor(now), id)
      enqueue(found[1], id, 0, at_front(found[3]))
    end
  end
end

-- A job that goes to its queue by way of its rate limit; the limit's keys are made where they are gone.
local function enqueue_limited(id, key, concurrency)
  call('SADD', K_RATE_KEYS, key)
  call('HSET', K_RATE .. key, F_concurrency, concurrency)
  call('HSET', K_JOB .. id, F_status, S_RATE_LIMITED)
  call('ZADD', K_RATE .. key .. ':rate_limited', math.floor(now), id)
  fill_slots(key, num(concurrency))
end

local function release_slot(id, key)
  call('ZREM', K_RATE .. key .. ':allowed', id)
  fill_slots(key, num(call('HGET', K_RATE .. key, F_concurrency)))
end

