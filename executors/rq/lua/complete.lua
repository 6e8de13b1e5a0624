-- Part: what follows when a job has ended: the subscribers hear of it, jobs that waited for it go on or fail, its keys go.
--   news     kind letter, attempts, crashes, id, then what there is of the outcome: see record.read_news
--   kinds    s succeeded   f failed   c cancelled; as capitals: the outcome is too large, ask for it
local told = {}
local function tell(reply_to, kind, counts, id, payload)
  local news = told[reply_to]
  if news == nil then news = {} told[reply_to] = news end
  if #payload > T_INLINE_MAX then kind, payload = string.upper(kind), '' end
  news[#news + 1] = kind .. counts .. ' ' .. id .. ' ' .. payload
end

local function send_news()
  for reply_to, news in pairs(told) do
    local list, size = K_REPLIES .. reply_to, 0
    for first = 1, #news, 500 do size = call('RPUSH', list, unpack(news, first, math.min(first + 499, #news))) end
    if size > T_REPLIES_MAX then call('LTRIM', list, -T_REPLIES_MAX, -1) end
    call('EXPIRE', list, T_REPLIES_KEPT)
  end
end

-- Tell the subscribers that came later than the submit.
local function tell_more(id, kind, counts, payload)
  local key = K_SUBSCRIBERS .. id
  for _, reply_to in ipairs(call('SMEMBERS', key)) do tell(reply_to, kind, counts, id, payload) end
  call('DEL', key)
end

-- All keys of a job live as long as its hash; ttl 0: it is forgotten; below 0: kept for ever.
local function keep(id, ttl)
  local job, needs = K_JOB .. id, K_DEPENDENCIES .. id .. ':dependencies'
  local all = {job, job .. ':dependents', needs, K_RESULTS .. id, K_LOG .. id}
  if ttl == 0 then
    call('DEL', unpack(all))
  elseif ttl > 0 then
    for _, key in ipairs(all) do call('EXPIRE', key, ttl) end
  end
end

local function free_key(key, id)
  if key and key ~= '' and redis.pcall('GET', K_KEY .. key) == id then call('DEL', K_KEY .. key) end
end

-- Where the jobs stand that a job waits for: 'met', 'unmet', or the id of one because of which it must fail.
local function needs_of(id, ours, allow_failures)
  local verdict = 'met'
  for _, need in ipairs(call('SMEMBERS', K_DEPENDENCIES .. id .. ':dependencies')) do
    local status = call('HGET', K_JOB .. need, F_status)
    if status == S_FINISHED or (status == S_FAILED and allow_failures) then
      -- met
    elseif ours and (not status or status == S_FAILED or status == S_STOPPED or status == S_CANCELED) then
      return need
    elseif status then
      verdict = 'unmet'
    end
  end
  return verdict
end

-- The failure of a job that cannot run because of one that it needs: 'D', its id, and how that one ended
local function because_of(need)
  local j = call('HMGET', K_JOB .. need, F_status, F_failure)
  if j[1] == S_CANCELED or j[1] == S_STOPPED then return 'D' .. need .. ' c' end
  local fine, failure = pcall(cmsgpack.unpack, j[2] or '')
  if fine and type(failure) == 'table' and type(failure[2]) == 'string' and type(failure[3]) == 'string' then
    return 'D' .. need .. ' f' .. failure[2] .. ' ' .. string.sub(failure[3], 1, 500)
  end
  return 'D' .. need
end

local release
-- End a job by the store's own hand. `failure` empty: it is cancelled. `text`: what RQ's readers see as the traceback.
-- Returns whether jobs wait for it, to be released by the caller.
local function close(id, failure, text)
  local j = call('HMGET', K_JOB .. id, F_origin, F_failure_ttl, F_result_ttl, F_reply, F_key, F_attempts, F_crashes)
  local queue, failed = j[1] or 'default', failure ~= ''
  local ttl = kept_for(failed and j[2] or j[3])
  if failed then
    call('HSET', K_JOB .. id, F_status, S_FAILED, F_ended_at, iso, F_failure, failure)
    add_result(id, F_type, 2, 'worker_name', '', F_exc_string, text)
    if ttl ~= 0 then call('ZADD', K_FAILED .. queue, ttl < 0 and ttl or now + ttl, id) end
  else
    call('HSET', K_JOB .. id, F_status, S_CANCELED, F_ended_at, iso)
    if ttl ~= 0 then call('ZADD', K_CANCELED .. queue, math.floor(now), id) end
  end
  local kind, counts = failed and 'f' or 'c', (j[6] or '0') .. ' ' .. (j[7] or '0')
  if j[4] then tell(j[4], kind, counts, id, failure) end
  tell_more(id, kind, counts, failure)
  free_key(j[5], id)
  call('ZREM', K_EXPIRIES, id)
  release(id)
  keep(id, ttl)
end

-- Look at the jobs that waited for one that has ended; those that cannot run any more end here too, and so on.
local releasing = {}
local busy = false
release = function(first)
  releasing[#releasing + 1] = first
  if busy then return end
  busy = true
  while #releasing > 0 do
    local id = table.remove(releasing)
    for _, waiting in ipairs(call('SMEMBERS', K_JOB .. id .. ':dependents')) do
      local j = call('HMGET', K_JOB .. waiting, F_status, F_origin, F_task, F_allow_failures, F_due, F_priority,
        F_at_front, F_rate_limit_key, F_rate_limit_concurrency)
      local verdict = j[1] == S_DEFERRED and needs_of(waiting, j[3], j[4] == '1') or 'gone'
      if verdict == 'met' then
        call('ZREM', K_DEFERRED .. j[2], waiting)
        call('SREM', K_JOB .. id .. ':dependents', waiting)
        for _, need in ipairs(call('SMEMBERS', K_DEPENDENCIES .. waiting .. ':dependencies')) do
          local key = K_JOB .. need .. ':dependents' -- made anew where the one that is needed had ended before
          local left = call('TTL', key) == -1 and call('TTL', K_JOB .. need) or -1
          if left > 0 then call('EXPIRE', key, left) elseif left == -2 then call('DEL', key) end
        end
        if num(j[5]) > now then
          call('HSET', K_JOB .. waiting, F_status, S_SCHEDULED)
          call('ZADD', K_SCHEDULED .. j[2], num(j[5]), waiting)
          call('PUBLISH', K_WAKE, j[2])
        elseif j[8] and j[9] then
          enqueue_limited(waiting, j[8], j[9])
        else
          enqueue(j[2], waiting, j[6], at_front(j[7]))
        end
      elseif verdict ~= 'unmet' and verdict ~= 'gone' then
        withdraw(waiting, j[2], S_DEFERRED)
        close(waiting, because_of(verdict), T_DEPENDENCY)
      end
    end
  end
  busy = false
end

