# does: shows more things than anybody looks at
# expect: succeeded
# value: 7
# completed: true
# displays: 32
# displays_dropped: 19968

for number in range(20_000):
    display(number)
7
