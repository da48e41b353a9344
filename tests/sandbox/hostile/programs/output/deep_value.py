# does: answers with a list in a list in a list
# expect: succeeded
# value: null

def main():
    value = []
    for _ in range(100_000):
        value = [value]
    return value
