-- Part: where in a queue's list a job goes. A list without priorities is only pushed to; K_PRIORITIES .. queue exists
-- while jobs of another priority than 0 wait in it, and then the list is kept sorted, highest first.
local banded = {}
local function has_bands(queue)
  if banded[queue] == nil then banded[queue] = call('EXISTS', K_PRIORITIES .. queue) == 1 end
  return banded[queue]
end

-- Whether a job is older than another one: ids of ours grow with time, others have only the time of their making
local function is_older(id, other)
  if #id == 26 and #other == 26 then return id < other end
  local made, made_other = redis.pcall('HGET', K_JOB .. id, F_created_at), redis.pcall('HGET', K_JOB .. other, F_created_at)
  return type(made) == 'string' and type(made_other) == 'string' and made < made_other
end

-- What comes back goes to the front, but behind jobs that came back before it and are older
local function push_front(list, id)
  for at = 0, 63 do
    local other = call('LINDEX', list, at)
    if not other then call('RPUSH', list, id) return end
    if not is_older(other, id) then
      if at == 0 then call('LPUSH', list, id) else call('LINSERT', list, 'BEFORE', other, id) end
      return
    end
  end
  call('LPUSH', list, id)
end

-- Where RQ's `at_front` puts a job: before all, older ones too
local FIRST = 'first'
local function at_front(flag) return flag == '1' and FIRST end

local function place(queue, id, priority, front)
  local list, bands = K_QUEUE .. queue, K_PRIORITIES .. queue
  if priority ~= 0 then
    call('ZADD', bands, priority, id)
    banded[queue] = true
  elseif not has_bands(queue) then
    if front == FIRST then call('LPUSH', list, id) elseif front then push_front(list, id) else call('RPUSH', list, id) end
    return
  end
  local function comes_after(other)
    local band = num(call('ZSCORE', bands, other))
    return band < priority or (front and band == priority)
  end
  local last = call('LINDEX', list, -1)
  if not last or not comes_after(last) then call('RPUSH', list, id) return end
  if comes_after(call('LINDEX', list, 0)) then call('LPUSH', list, id) return end
  local low, high = 0, call('LLEN', list) - 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if comes_after(call('LINDEX', list, middle)) then high = middle else low = middle + 1 end
  end
  call('LINSERT', list, 'BEFORE', call('LINDEX', list, low), id)
end

-- Queue a job whose hash is there: status, time, place. `front`: before its equals, as it comes back; FIRST: before all
-- of its priority.
local function enqueue(queue, id, priority, front)
  call('HSET', K_JOB .. id, F_status, S_QUEUED, F_enqueued_at, iso)
  call('SADD', K_QUEUES, K_QUEUE .. queue)
  place(queue, id, num(priority), front)
end

-- Take a waiting job out of wherever it waits.
local function withdraw(id, queue, status)
  if status == S_QUEUED then
    call('LREM', K_QUEUE .. queue, 1, id)
    if has_bands(queue) then call('ZREM', K_PRIORITIES .. queue, id) end
  elseif status == S_SCHEDULED then
    call('ZREM', K_SCHEDULED .. queue, id)
  elseif status == S_DEFERRED then
    call('ZREM', K_DEFERRED .. queue, id)
    for _, need in ipairs(call('SMEMBERS', K_DEPENDENCIES .. id .. ':dependencies')) do
      call('SREM', K_JOB .. need .. ':dependents', id)
    end
  elseif status == S_READY then
    call('ZREM', K_READY .. queue, id)
  elseif status == S_RATE_LIMITED then
    local key = call('HGET', K_JOB .. id, F_rate_limit_key)
    if key then call('ZREM', K_RATE .. key .. ':rate_limited', id) end
  end
end

