-- A deposit or a withdrawal in Redis: KEYS is the account, ARGV two random numbers, of which one is the sum and the
-- other says which it is. Gives the balance afterwards; what is declined leaves it as it was, and an entry, as it does
-- in the bank. The history's key is made here, since redis-benchmark puts another random number into each argument.
local closed, overdraft_limit, balance = unpack(redis.call('HMGET', KEYS[1], 'closed', 'overdraft_limit', 'balance'))
local amount = ARGV[1] % 100 + 1
if ARGV[2] % 2 == 1 then amount = -amount end
local declined = closed ~= '0' or balance + amount < -overdraft_limit
if not declined then balance = redis.call('HINCRBY', KEYS[1], 'balance', amount) end
redis.call('RPUSH', 'history' .. KEYS[1]:sub(8), amount .. ' ' .. balance .. ' ' .. tostring(declined))
return balance
