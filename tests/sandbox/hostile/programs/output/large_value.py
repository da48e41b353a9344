# does: answers with 64 MB
# expect: succeeded
# value: null
# limits: {"memory": "512MiB"}

def main():
    return 'x' * (64 << 20)
