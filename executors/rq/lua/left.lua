-- Part: jobs that a worker has refused stay in their place, and it passes over them while another one may run them.
--   A job's tq_left names the workers that refused it, by their nonces.
local rosters = {}

-- The nonces of the other workers that serve a queue and are alive; of stock ones, which run whatever comes, '*'
local function others_of(queue, me)
  local others = rosters[queue]
  if others then return others end
  others = {}
  rosters[queue] = others
  for _, wkey in ipairs(call('SMEMBERS', K_WORKERS_OF .. queue)) do
    local w = redis.pcall('HMGET', wkey, F_birth, F_death, F_nonce, F_stopping)
    local lives = not w.err and w[1] and not w[2] and w[3] ~= me and w[4] ~= '1'
    if lives and not w[3] then
      others[#others + 1] = '*'
    elseif lives then
      local lease = call('ZSCORE', K_LEASES, string.sub(wkey, #K_WORKER + 1))
      if lease and tonumber(lease) > now then others[#others + 1] = w[3] end
    end
  end
  return others
end

-- Whether another worker may run a job that these have refused
local function could_run(left, queue, me)
  for _, other in ipairs(others_of(queue, me)) do
    if other == '*' or not string.find(left, other, 1, true) then return true end
  end
  return false
end

-- Whether this worker has refused the job and is to leave it to another one
local function is_left(id, queue, me)
  local left = redis.pcall('HGET', K_JOB .. id, F_left)
  return type(left) == 'string' and string.find(left, me, 1, true) and could_run(left, queue, me)
end

-- Note that this worker refuses a job; returns whether another one may run it
local function leave(id, queue, me)
  local before, left = call('HGET', K_JOB .. id, F_left) or '', me
  for _, other in ipairs(others_of(queue, me)) do
    if other ~= '*' and string.find(before, other, 1, true) then left = left .. ' ' .. other end
  end
  call('HSET', K_JOB .. id, F_left, left)
  return could_run(left, queue, me)
end

