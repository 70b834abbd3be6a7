from balaitous.cli import main

main()
