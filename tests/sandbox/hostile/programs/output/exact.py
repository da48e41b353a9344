# does: prints 300 kB
# expect: succeeded
# stdout_repeat: ["0123456789", 30000]

print('0123456789' * 30_000, end='')
