-- needs: prelude result idle finish_fast queue rate_limit complete left
-- Tell what became of jobs. Argument: {worker, sequence number, outcomes, state, seconds, idle or 0, queues}; a
--   verdict is
--   {id, token, queue, kind, ttl, reply_to, counts, payload, exc_string, since, key, more fields or 0, delay, refused,
--    foreign or 0, whole, log}
--   kinds: s succeeded  f failed  q failed, and not listed  x stopped  c cancelled  b back to the front
--     r again after delay  u the same, and not counted as a retry
--   refused 1: this worker cannot run it; then it stays for others that may, in its place, whatever its kind says
--   foreign: {retry: 1 or 0, returned Retry: {max, intervals, front} or 0}; whole 1: it has keys that few jobs have
-- Returns {ids of outcomes that came too late, 1 if the worker is registered now}: it is, where its queues are empty.
-- Repeated with the same sequence number: the same answer, no effect; 2 if something may have been handed over since.
if done and string.match(done, '^%d+') == sequence then
  local late = {}
  for id in string.gmatch(done, ' (%S+)') do late[#late + 1] = id end
  return {late, idle ~= 0 and is_idle(worker, idle[1]) and 1 or 2}
end

-- The fence: only who is still in the wip registry counts. Removing comes first: it is allowed at the limit of memory,
-- and what follows a write is too.
local by_queue, late, mine, ran_on = {}, {}, {}, {}
for i, v in ipairs(outcomes) do
  local queue = by_queue[v[3]]
  if queue == nil then queue = {{}, {}} by_queue[v[3]] = queue end
  queue[1][#queue[1] + 1] = v[1] .. ':' .. v[2]
  queue[2][#queue[2] + 1] = i
end
local members, records = {}, {}
-- A job of stock RQ that a client of it has cancelled runs on there, and its end is written: only its place in wip went
local function runs_on(v, composite)
  return v[15] ~= 0 and call('SISMEMBER', wkey .. ':executions', composite) == 1
    and call('HGET', K_JOB .. v[1], F_status) == S_CANCELED
end
for queue, entries in pairs(by_queue) do
  local scores = call('ZMSCORE', K_WIP .. queue, unpack(entries[1]))
  local held = {}
  for n, score in ipairs(scores) do
    local i, composite = entries[2][n], entries[1][n]
    if not score then ran_on[i] = runs_on(outcomes[i], composite) end
    if score or ran_on[i] then
      held[#held + 1] = composite
      mine[i] = true
      members[#members + 1] = composite
      records[#records + 1] = K_EXECUTION .. composite
      records[#records + 1] = K_EXECUTIONS .. outcomes[i][1]
    else
      late[#late + 1] = outcomes[i][1]
    end
  end
  call('ZREM', K_WIP .. queue, unpack(#held > 0 and held or {''}))
end
if #members > 0 then
  call('SREM', wkey .. ':executions', unpack(members))
  call('DEL', unpack(records))
end

local registries, names, counted = {}, {}, {s = 0, f = 0}
local function register(key, score, id)
  local entries = registries[key]
  if entries == nil then entries = {} registries[key] = entries end
  entries[#entries + 1] = score
  entries[#entries + 1] = id
end

local function result(v, kind, ...)
  add_result(v[1], F_type, kind, F_worker_name, worker, F_execution_id, v[2], F_execution_started_at, v[10],
    F_execution_ended_at, stamp, ...)
end

-- RQ's own rules for a job that stock RQ enqueued: source rq 3.0.0 job.py retry(), repeat.py schedule().
local function interval_of(list, index)
  local intervals = list and list_of(list) or {}
  return num(intervals[math.max(index, 0) + 1]), intervals
end

local function again(v, delay, front)
  if delay > 0 then
    call('HSET', K_JOB .. v[1], F_status, S_SCHEDULED)
    call('ZADD', K_SCHEDULED .. v[3], now + delay, v[1])
    call('PUBLISH', K_WAKE, v[3])
  else
    enqueue(v[3], v[1], 0, front)
  end
end

local function retried(v)
  local j = call('HMGET', K_JOB .. v[1], F_retries_left, F_retry_intervals, F_front_on_retry)
  local left = num(j[1])
  if left <= 0 then return false end
  local count = j[2] and #list_of(j[2]) or 0
  local delay = interval_of(j[2], count - left)
  call('HSET', K_JOB .. v[1], F_retries_left, left - 1, F_ended_at, iso)
  again(v, delay, at_front(j[3]))
  return true
end

local function repeated(v)
  local j = call('HMGET', K_JOB .. v[1], F_repeats_left, F_repeat_intervals)
  local left = num(j[1])
  if left <= 0 then return false end
  local delay, intervals = interval_of(j[2], 0)
  if #intervals > 1 then
    table.remove(intervals, 1)
    call('HSET', K_JOB .. v[1], F_repeat_intervals, cjson.encode(intervals))
  end
  call('HSET', K_JOB .. v[1], F_repeats_left, left - 1)
  again(v, delay, false)
  return true
end

local function returned_retry(v, retry)
  local before = num(call('HGET', K_JOB .. v[1], F_number_of_retries))
  if before >= retry[1] then
    result(v, 5, F_return_value, v[8])
    return false
  end
  result(v, 4, F_return_value, v[8])
  call('HSET', K_JOB .. v[1], F_number_of_retries, before + 1, F_ended_at, iso)
  local front = retry[3] == 1 or call('HGET', K_JOB .. v[1], F_front_on_retry) == '1'
  if retry[3] == 1 then call('HSET', K_JOB .. v[1], F_front_on_retry, 1) end
  again(v, num(retry[2][math.min(#retry[2], before + 1)]), front and FIRST)
  return true
end

-- A job of ours that waits again: after an error or by its wish (r, u), or because its worker did not run it
local function send_back(v, kind)
  local id, queue, job = v[1], v[3], K_JOB .. v[1]
  local j = call('HMGET', job, F_priority, F_cancel, F_retries_left)
  call('HSET', job, F_rare, 1) -- its attempts are to be looked up
  if kind == 'r' and num(j[3]) > 0 then call('HSET', job, F_retries_left, math.floor(num(j[3])) - 1) end
  if kind == 'b' then
    call('HDEL', job, F_started_at, F_worker_name)
    local expires = call('HGET', job, F_expires)
    if expires then call('ZADD', K_EXPIRIES, num(expires), id) end
    if v[14] == 1 then
      if v[13] > 0 then call('HSETNX', job, F_refused, stamp) else call('HDEL', job, F_refused) end
    end
  end
  if j[2] then
    close(id, '', '')
  elseif v[13] > 0 then
    call('HSET', job, F_status, S_SCHEDULED)
    call('ZADD', K_SCHEDULED .. queue, now + v[13], id)
    call('PUBLISH', K_WAKE, queue)
  else
    enqueue(queue, id, j[1], kind == 'b')
  end
end

local function slot(v)
  local j = call('HMGET', K_JOB .. v[1], F_rate_limit_key, F_status)
  if j[1] and j[2] ~= S_QUEUED and j[2] ~= S_STARTED then release_slot(v[1], j[1]) end
end

local function add_log(id, log)
  local size = try('STRLEN', K_LOG .. id)
  local room = T_LOG_MAX - (type(size) == 'number' and size or 0)
  if room > 0 then try('APPEND', K_LOG .. id, string.sub(log, 1, room)) end
end

local texts, ends = {}, {}
local function text_of(ttl)
  local text = texts[ttl]
  if text == nil then text = string.format('%d', ttl) texts[ttl] = text ends[ttl] = at(ttl) end
  return text
end

local nonce
local function is_left_to_others(id, queue)
  nonce = nonce or call('HGET', wkey, F_nonce) or wkey
  return leave(id, queue, nonce)
end

local ended = {}
for i, v in ipairs(outcomes) do
  if mine[i] then
    local id, queue, kind, ttl, more, foreign = v[1], v[3], v[4], v[5], v[12], v[15]
    local job = K_JOB .. id
    if more ~= 0 then try('HSET', job, unpack(more)) end
    if v[17] ~= '' then add_log(id, v[17]) end
    local goes_on, listed = false, kind ~= 'q'
    if not listed then kind = 'f' end
    if v[14] == 1 then
      if is_left_to_others(id, queue) then kind, v[13] = 'b', 0 elseif kind == 'f' then try('HSET', job, F_failure, v[8]) end
    end
    if foreign ~= 0 then
      if foreign[2] ~= 0 then
        goes_on = returned_retry(v, foreign[2])
        if not goes_on then kind = 'm' end
        counted.f = counted.f + 1
      elseif kind == 'f' and foreign[1] == 1 then
        goes_on = retried(v)
        if goes_on then counted.f = counted.f + 1 end
      end
    end
    if goes_on then
      -- it waits again
    elseif kind == 's' then
      counted.s = counted.s + 1
      if ran_on[i] then pcall(release, id) end -- as in stock RQ, those that wait for it see it as cancelled, and stay
      try('HSET', job, F_status, S_FINISHED, F_ended_at, iso, F_last_heartbeat, iso)
      if ttl == 0 and foreign == 0 and call('EXISTS', job .. ':dependents') == 1 then
        ttl = 3600 -- those that wait for it still have to read its result
        v[5] = ttl
      end
      if ttl ~= 0 then
        if v[8] == '' then result(v, 1) else result(v, 1, F_return_value, v[8]) end
        if ttl > 0 then try('EXPIRE', K_RESULTS .. id, text_of(ttl)) end
        register(K_FINISHED .. queue, ttl < 0 and '+inf' or ends[ttl], id)
      end
      if foreign ~= 0 and repeated(v) then goes_on = true elseif ttl > 0 then try('EXPIRE', job, text_of(ttl)) end
    elseif kind == 'r' or kind == 'u' or kind == 'b' then
      goes_on = true
      if kind == 'r' then counted.f = counted.f + 1 end
      send_back(v, kind)
    elseif kind == 'c' then
      try('HSET', job, F_status, S_CANCELED, F_ended_at, iso)
      if ttl ~= 0 then register(K_CANCELED .. queue, math.floor(now), id) end
    else
      if kind ~= 'm' then counted.f = counted.f + 1 end
      try('HSET', job, F_status, kind == 'x' and S_STOPPED or S_FAILED, F_ended_at, iso, F_last_heartbeat, iso)
      if ttl ~= 0 and listed then
        if kind ~= 'm' then result(v, 2, F_exc_string, v[9]) end
        if ttl > 0 then try('EXPIRE', K_RESULTS .. id, ttl) end
        register(K_FAILED .. queue, ttl < 0 and ttl or now + ttl, id)
      end
    end
    if not goes_on then
      ended[#ended + 1] = v
      v.stays = kind == 's' and ran_on[i]
      names[#names + 1] = job .. ':dependents'
      names[#names + 1] = K_SUBSCRIBERS .. id
      names[#names + 1] = K_LOG .. id
      local letter = (kind == 'x' and 'c') or (kind == 'm' and 'f') or kind
      if foreign ~= 0 then letter, v[8] = string.upper(letter), '' end -- its value is not in our codec: ask for it
      if v[6] ~= '' then tell(v[6], letter, v[7], id, v[8]) end
      if v[11] ~= '' then free_key(v[11], id) end
      v[4] = letter
    end
    if foreign ~= 0 then slot(v) end
  end
end
for key, entries in pairs(registries) do call('ZADD', key, unpack(entries)) end

-- Few jobs have dependents, later subscribers or a log: one look at all of them
local extras = #names > 0 and call('EXISTS', unpack(names)) > 0
for _, v in ipairs(ended) do
  local ttl = v[5]
  if extras then
    tell_more(v[1], v[4], v[7], v[8])
    if not v.stays then release(v[1]) end
  end
  if ttl == 0 then
    call('ZREM', K_FAILED .. v[3], v[1])
    local group = v[15] ~= 0 and call('HGET', K_JOB .. v[1], F_group_id)
    if group then call('SREM', K_GROUP .. group, v[1]) end
    keep(v[1], 0)
  elseif ttl > 0 and (extras or v[4] ~= 's' or v[16] == 1) then
    keep(v[1], ttl)
  end
end

if done or call('EXISTS', wkey) == 1 then
  call('HSET', wkey, F_finish_seq, sequence .. ' ' .. table.concat(late, ' '), F_state, state)
  if counted.s > 0 then call('HINCRBY', wkey, F_succeeded, counted.s) end
  if counted.f > 0 then call('HINCRBY', wkey, F_failed, counted.f) end
  if seconds > 0 then call('HINCRBYFLOAT', wkey, F_working_time, seconds) end
end
send_news()

return {late, register_if_empty()}
