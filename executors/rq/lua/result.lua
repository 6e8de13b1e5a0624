-- Part: the stream entry in which RQ's readers find how a job ended. Written to a scratch stream and copied: a fresh stream
-- holds 4 kB in reserve, a copy only what it needs. What somebody has left there goes first: else it would be copied too.
local scratch_is_clean = false
local function add_result(id, ...)
  if not scratch_is_clean then call('DEL', K_SCRATCH) scratch_is_clean = true end
  call('XADD', K_SCRATCH, '*', ...)
  if call('COPY', K_SCRATCH, K_RESULTS .. id) == 0 then redis.pcall('XADD', K_RESULTS .. id, 'MAXLEN', 10, '*', ...) end
  call('DEL', K_SCRATCH)
end

