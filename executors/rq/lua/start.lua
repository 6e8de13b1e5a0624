-- Part: jobs come into the hands of a worker: their records, and RQ's records of their executions.
local alive, alive_more, ttl, ttl_more = at(T_ALIVE), at(T_ALIVE + 60), tostring(T_ALIVE), tostring(T_ALIVE + 60)

local function fields_of(id)
  return redis.pcall('HMGET', K_JOB .. id, F_data, F_task, F_result_ttl, F_failure_ttl, F_reply, F_rare, F_status)
end

-- What a worker is told of a job of ours; `rare`: what few jobs have, or 0
local function entry_of(id, token, queue, f, rare)
  f[6], f[7] = rare, nil
  for i = 3, 5 do f[i] = f[i] or '' end
  return {id, token, queue, f}
end

local function execution(id, token, worker)
  local composite = id .. ':' .. token
  call('HSET', K_EXECUTION .. composite, F_id, token, F_job_id, id, F_created_at, stamp, F_last_heartbeat, stamp,
    F_worker_name, worker)
  call('EXPIRE', K_EXECUTION .. composite, ttl)
  call('ZADD', K_EXECUTIONS .. id, alive_more, token)
  call('EXPIRE', K_EXECUTIONS .. id, ttl_more)
  return composite
end

-- Whether a job must run by itself, as its next crash is its last one: then it alone can be to blame for it
local function is_suspect(crashes, limit) return crashes > 0 and crashes >= (tonumber(limit or 3) or 3) - 1 end

