-- needs: prelude queue rate_limit result complete promote start idle left
-- Take jobs and start them. Argument: {worker, sequence number, token base, want, queues, one id or '', idle or 0,
--   the worker's nonce if it has refused jobs, else '', 0 or {the queue that comes first, a seed or 0}}: 0, queues in
--   their order; else by turns, one job each, and with a seed in an order that is drawn for each job.
-- Returns {'gone'}: this worker is not registered (any more); or {'ok', stamp, next due or '', jobs, closed, registered}; a
--   job is {id, token, queue, fields}; fields of ours: see claim.py; of another's: {'', all fields and values}.
--   closed: for each queue 1 where nothing is started for now, as it is paused; 2 where all that
--   waits was refused by this worker, and is left to others; 3 where all are suspended, as by `rq suspend`
--   jobs: those too that were handed over under the base of `idle`; registered: 1 while one may still be
-- A job that must run by itself is taken by a worker that holds nothing, alone; until it holds nothing it takes no other
--   one that is behind it.
-- Repeated with the same sequence number it returns the same jobs, those that this worker still holds.
local worker, sequence, base, want, queues, only, idle, nonce, turns = unpack(cmsgpack.unpack(ARGV[1]))
local wkey = K_WORKER .. worker
local executions = wkey .. ':executions'
local before, state = unpack(call('HMGET', wkey, F_claim_seq, F_state))
if not before then return {'gone'} end

-- What few jobs have: {key, refused for, needs and their results, meta, starts before, crashes, retries, suspect}
local function rare_of(id)
  local r = call('HMGET', K_JOB .. id, F_key, F_refused, F_dependency_ids, F_meta, F_attempts, F_crashes, F_retries,
    F_suspect)
  local results = {}
  if r[3] then
    for _, need in ipairs(ids_of(r[3])) do
      local latest = call('XREVRANGE', K_RESULTS .. need, '+', '-', 'COUNT', 1)[1]
      results[#results + 1] = need
      results[#results + 1] = latest and latest[2] or {}
    end
  end
  return {r[1] or '', r[2] and tostring(now - num(r[2])) or '0', results, r[4] or '', r[5] or '1',
    r[6] or '0', r[7] or '0', r[8] or ''}
end

local function answer(id, token, queue, f)
  if f[2] then return entry_of(id, token, queue, f, f[6] and rare_of(id) or 0) end
  return {id, token, queue, {'', call('HGETALL', K_JOB .. id)}}
end

-- A moment as many microseconds after this one as jobs were taken before
local function later_iso(micros)
  local total = tonumber(clock[2]) + micros
  return as_iso(tonumber(clock[1]) + math.floor(total / 1000000), total % 1000000)
end

local jobs = {}
-- The jobs that this worker was given under a base, in their order
local function given_under(base)
  local members = call('SMEMBERS', executions)
  table.sort(members, function(a, b) return string.sub(a, -8) < string.sub(b, -8) end)
  for _, member in ipairs(members) do
    local id, token = string.match(member, '^([^:]*):(.*)$')
    if token and string.sub(token, 1, #base) == base then
      local f = fields_of(id)
      local queue = call('HGET', K_JOB .. id, F_origin)
      if not f.err and f[1] and queue then jobs[#jobs + 1] = answer(id, token, queue, f) end
    end
  end
end

local registered = idle ~= 0 and is_idle(worker, idle[1])
if before == sequence then
  given_under(base)
  if idle ~= 0 and not registered then given_under(idle[1]) end
  return {'ok', stamp, '', jobs, {}, registered and 1 or 0}
end

-- At the limit of memory too: what is kept can be worked off, and only ends give room back
begin_writing()
call('HSET', wkey, F_claim_seq, sequence)

local handed = idle ~= 0 and idle[4] == 1 and not registered
if handed then given_under(idle[1]) end

local next_due = ''
local members, wip = {}, {}
local function start(id, queue, f)
  local token = string.format('%s%08x', base, #jobs)
  local attempts = '1' -- the first one, unless something is said
  if f[6] or not f[2] then
    local before = call('HMGET', K_JOB .. id, F_attempts, F_crashes, F_suspect)
    attempts = tostring(num(before[1]) + 1)
    if before[3] or num(before[2]) > 0 then call('HSET', K_JOB .. id, F_told, '-' .. token) end
  end
  -- RQ's clients tell by this time which of several jobs was taken first
  local began = (f[2] or #jobs == 0) and iso or later_iso(#jobs)
  call('HSET', K_JOB .. id, F_status, S_STARTED, F_started_at, began, F_last_heartbeat, iso, F_worker_name, worker,
    F_attempts, attempts)
  local composite = execution(id, token, worker)
  if not f[2] then call('PERSIST', K_JOB .. id) end
  members[#members + 1] = composite
  wip[#wip + 1], wip[#wip + 2] = alive, composite
  jobs[#jobs + 1] = answer(id, token, queue, f)
end

-- Whether a job runs already or has ended: its id stands in the list once more. One that says that it runs while there is
-- no execution of it is taken: nobody else would ever run it.
local ENDED = {[S_FINISHED] = true, [S_FAILED] = true, [S_STOPPED] = true, [S_CANCELED] = true}
local function is_repeated(id, status)
  return ENDED[status] or (status == S_STARTED and call('EXISTS', K_EXECUTIONS .. id) == 1)
end

-- Start this job unless it was taken before, is broken or has expired. Returns whether it must wait until this worker
-- holds nothing.
local alone, waits = false, false
local function take(id, queue)
  local f = fields_of(id)
  if f.err or is_repeated(id, f[7]) then return end
  if not f[1] then
    if call('EXISTS', K_JOB .. id) == 1 then
      call('HSET', K_JOB .. id, F_origin, queue)
      close(id, 'Q', T_BROKEN)
    end
    return
  end
  if f[6] then
    local e = call('HMGET', K_JOB .. id, F_expires, F_attempts, F_crashes, F_max_crashes)
    local expires = e[1]
    if expires and num(expires) <= now and num(e[2]) == 0 then
      close(id, 'E' .. (call('HGET', K_JOB .. id, F_expires_in) or ''), T_EXPIRED)
      return
    end
    if is_suspect(num(e[3]), e[4]) then
      if #jobs > 0 or call('SCARD', executions) > 0 then return true end
      alone = true
    end
    if expires then call('ZREM', K_EXPIRIES, id) end
  end
  start(id, queue, f)
end

-- Whatever a record looks like, it must cost only its own job: the others are popped already
local function take_or_fail(id, queue)
  local fine, found = pcall(take, id, queue)
  waits = fine and found or false
  if fine then return end
  redis.pcall('HSET', K_JOB .. id, F_status, S_FAILED, F_ended_at, iso, F_failure, 'Q')
  redis.pcall('ZADD', K_FAILED .. queue, now + 604800, id)
  redis.pcall('EXPIRE', K_JOB .. id, 604800)
end

-- Entries that start nothing are dropped, at most about so many in one claim: Redis serves nobody else meanwhile
local DROPS, dropped = 2000, 0

-- Take popped jobs in their order; those that this worker may not take now go back to the front
local function take_all(ids, queue)
  local before = #jobs
  for n, id in ipairs(ids) do
    take_or_fail(id, queue)
    if waits or alone then
      for back = #ids, waits and n or n + 1, -1 do
        local priority = num(redis.pcall('HGET', K_JOB .. ids[back], F_priority))
        if priority ~= 0 or has_bands(queue) then
          place(queue, ids[back], priority, true)
        else
          call('LPUSH', K_QUEUE .. queue, ids[back])
        end
      end
      return
    end
  end
  dropped = dropped + #ids - (#jobs - before)
end

local function enter(queue)
  if #members == 0 then return end
  call('ZADD', K_WIP .. queue, unpack(wip))
  call('SADD', executions, unpack(members))
  members, wip = {}, {}
end

-- Jobs at which one claim looks at most; seconds after which the front of a queue is looked through anew, one more for
-- each 2,000 jobs that are left there; jobs at the very front at which each claim looks
local LOOKS, ANEW, FRONT = 5000, 1, 50
local looks = 0

-- How many jobs there may be until it is another queue's turn
local limit = want

-- Take those jobs of a part of a queue that this worker does not leave to others; returns where it has stopped, and
-- whether that is the end of the queue
local function take_part(queue, from, to)
  local list = K_QUEUE .. queue
  while from < to and limit > #jobs and looks < LOOKS and dropped < DROPS and not (waits or alone) do
    local ids, start, passed = call('LRANGE', list, from, math.min(from + 499, to - 1)), from, 0
    if #ids == 0 then return from, true end
    local has_marks = false
    for n, id in ipairs(ids) do
      if #jobs >= limit or dropped >= DROPS or waits or alone then break end
      looks = looks + 1
      if is_left(id, queue, nonce) then
        passed = passed + 1
      else
        call('LSET', list, start + n - 1, '')
        has_marks = true
        if has_bands(queue) then call('ZREM', K_PRIORITIES .. queue, id) end
        take_all({id}, queue)
      end
    end
    from = start + passed
    if has_marks then
      call('LREM', list, 0, '') -- once for all of them: it looks through the whole list
      enter(queue)
    end
  end
  return from, false
end

-- Take jobs of a queue, passing over those that are left to others; returns whether only such are there. It begins
-- behind the last one that it has passed over, as looking at thousands for each claim would hold up everybody.
local function take_between(queue)
  local list, field, before = K_QUEUE .. queue, F_passed .. ':' .. queue, #jobs
  local since, last = string.match(call('HGET', wkey, field) or '', '^(%S+) (.+)$')
  local known = last and call('LPOS', list, last)
  local from, ends = 0, false
  if known and now - num(since) < ANEW + known / 2000 then
    from = math.max(take_part(queue, 0, math.min(FRONT, known)), (call('LPOS', list, last) or -1) + 1)
  else
    since = stamp
  end
  from, ends = take_part(queue, from, math.huge)
  local passed = from > 0 and call('LINDEX', list, from - 1)
  if passed then call('HSET', wkey, field, since .. ' ' .. passed) end
  if looks >= LOOKS then next_due = stamp end
  return ends and from > 0 and #jobs == before
end

local paused, trouble = {}, nil
-- Whether this went well; what went wrong is told where nothing was taken
local function tried(step, ...)
  local fine, found = pcall(step, ...)
  if not fine then trouble = trouble or found end
  return fine
end

local function take_from(i, queue)
  -- Keys of another kind must be found before anything is moved
  call('ZCARD', K_WIP .. queue)
  call('LLEN', K_QUEUE .. queue)
  if has_bands(queue) then call('ZCARD', K_PRIORITIES .. queue) end
  local is_sound = tried(promote, queue)
  if nonce ~= '' and paused[i] == 0 and limit > #jobs and take_between(queue) then paused[i] = 2 end
  while limit > #jobs and paused[i] == 0 and nonce == '' and dropped < DROPS do
    local ids = call('LPOP', K_QUEUE .. queue, math.min(limit - #jobs, 500))
    if not ids then break end
    if has_bands(queue) then call('ZREM', K_PRIORITIES .. queue, unpack(ids)) end
    take_all(ids, queue)
    enter(queue)
    if waits or alone then break end
  end
  if waits then paused[i] = 2 end
  local first = is_sound and call('ZRANGE', K_SCHEDULED .. queue, 0, 0, 'WITHSCORES')[2]
  if first and paused[i] ~= 1 and (next_due == '' or tonumber(first) < tonumber(next_due)) then next_due = first end
end

local function take_one()
  local j = call('HMGET', K_JOB .. only, F_status, F_origin)
  local left = nonce ~= '' and is_left(only, j[2] or '', nonce)
  if not left and j[1] == S_QUEUED and j[2] and call('LREM', K_QUEUE .. j[2], 1, only) == 1 then
    if has_bands(j[2]) then call('ZREM', K_PRIORITIES .. j[2], only) end
    take_all({only}, j[2])
    enter(j[2])
  end
end

-- The places of the queues, in the order in which they are looked at for the next job
local function places_from(first, is_drawn)
  local places = {}
  for n = 0, #queues - 1 do places[n + 1] = (first - 1 + n) % #queues + 1 end
  for n = is_drawn and #places or 1, 2, -1 do
    local other = math.random(n)
    places[n], places[other] = places[other], places[n]
  end
  return places
end

local function take_by_turns(first, seed)
  if seed ~= 0 then math.randomseed(seed) end
  repeat
    local before = #jobs
    limit = math.min(want, before + 1)
    for _, i in ipairs(places_from(first, seed ~= 0)) do
      tried(take_from, i, queues[i])
      if #jobs > before then first = i % #queues + 1 end
      if #jobs > before or waits or alone then break end
    end
  until #jobs == before or #jobs >= want or waits or alone
end

local function take_from_all()
  paused = call('SMISMEMBER', K_PAUSED, unpack(queues))
  if turns ~= 0 then return take_by_turns(turns[1], turns[2]) end
  for i, queue in ipairs(queues) do
    tried(take_from, i, queue)
    if waits or alone then break end
  end
end

if only ~= '' then
  take_one()
elseif call('EXISTS', K_SUSPENDED) == 1 then
  for i = 1, #queues do paused[i] = 3 end
  if state == 'idle' then call('HSET', wkey, F_state, 'suspended') end
else
  tried(take_from_all)
end
-- Nothing was taken: asked again under this number, it looks again
if trouble and #jobs == 0 then
  call('HSET', wkey, F_claim_seq, before)
  return type(trouble) == 'table' and trouble or redis.error_reply(tostring(trouble))
end
if dropped >= DROPS then next_due = stamp end -- there may be more behind them: it asks again at once
if #jobs > 0 then
  call('EXPIRE', executions, T_HELD)
  call('HSET', wkey, F_state, 'busy')
elseif state == 'suspended' and paused[1] ~= 3 then
  call('HSET', wkey, F_state, 'idle')
end
local emptied = not (alone or waits or trouble) and dropped < DROPS
if idle ~= 0 and not handed and emptied and #jobs < math.min(want, idle[3]) then
  register_idle(worker, idle[1], idle[2], queues)
  registered = true
elseif registered then
  unregister_idle(worker)
  registered = false
end
send_news()
return {'ok', stamp, next_due, jobs, paused, registered and 1 or 0}
