# does: answers with a list that holds itself
# expect: succeeded
# value: null

def main():
    value = []
    value.append(value)
    return value
