-- needs: prelude queue rate_limit result complete
-- Queue jobs that failed or were cancelled again, as if new. Argument: {ids}. Returns 1 or 0 for each.
local done = {}
local ENDED = {[S_FINISHED] = true, [S_FAILED] = true, [S_STOPPED] = true, [S_CANCELED] = true}
-- Tell whether another job that has not ended has this one's key
local function is_taken(key, id)
  local holder = key and key ~= '' and redis.pcall('GET', K_KEY .. key)
  if type(holder) ~= 'string' or holder == id then return false end
  local status = call('HGET', K_JOB .. holder, F_status)
  return status and not ENDED[status]
end
local function retry(i, id)
  local j = call('HMGET', K_JOB .. id, F_status, F_origin, F_task, F_max_retries, F_priority, F_dependency_ids, F_data,
    F_rate_limit_key, F_rate_limit_concurrency, F_key)
  local status, queue = j[1], j[2]
  if j[7] and queue and (status == S_FAILED or status == S_STOPPED or status == S_CANCELED)
    and not is_taken(j[10], id) then
    local job = K_JOB .. id
    done[i] = 1
    if j[10] and j[10] ~= '' then call('SET', K_KEY .. j[10], id) end
    call('ZREM', K_FAILED .. queue, id)
    call('ZREM', K_CANCELED .. queue, id)
    call('PERSIST', job)
    call('PERSIST', K_RESULTS .. id)
    call('HDEL', job, F_failure, F_attempts, F_crashes, F_suspect, F_told, F_retries, F_cancel, F_refused, F_left, F_why,
      F_progress, F_expires, F_ended_at, F_started_at)
    call('DEL', K_LOG .. id)
    if j[4] then call('HSET', job, F_retries_left, j[4]) end
    local verdict = 'met'
    if j[3] and j[6] then
      call('DEL', K_DEPENDENCIES .. id .. ':dependencies')
      for _, need in ipairs(ids_of(j[6])) do
        call('SADD', K_DEPENDENCIES .. id .. ':dependencies', need)
        call('SADD', K_JOB .. need .. ':dependents', id)
      end
      call('HSET', job, F_status, S_DEFERRED)
      call('ZADD', K_DEFERRED .. queue, math.floor(now), id)
      verdict = needs_of(id, true, false)
      if verdict ~= 'unmet' then withdraw(id, queue, S_DEFERRED) end
    end
    if verdict == 'met' then
      if j[8] and j[9] then enqueue_limited(id, j[8], j[9]) else enqueue(queue, id, j[5], false) end
    elseif verdict ~= 'unmet' then
      close(id, because_of(verdict), T_DEPENDENCY)
    end
  end
end
for i, id in ipairs(unpack(cmsgpack.unpack(ARGV[1]))) do
  done[i] = 0
  pcall(retry, i, id) -- what one record holds costs that job alone
end
send_news()
return done
