# does: changes what it was given
# expect: succeeded
# input: {"cases": []}
# value: {"cases": [1]}

input_data['cases'].append(1)


def main():
    return input_data
