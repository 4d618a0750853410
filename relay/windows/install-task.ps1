<#
.SYNOPSIS
Lets the Task Scheduler send the ticks of a database that another program fills, every five minutes, for ever.

.DESCRIPTION
Needs administrator rights once, and the program that install.ps1 installs (install.ps1 without -Forward will do). A task runs
tickpipe.exe, whether somebody is logged on or not, without a stored password. Its key and its log are in
%ProgramData%\Tickpipe exporter, which only administrators and the account of the task can read. The server's key is asked for.
Installing again replaces the task.

.EXAMPLE
.\install-task.ps1 -Api https://ticks.example.com -Db D:\ticks\ea.db
.EXAMPLE
.\install-task.ps1 -Uninstall
#>
[CmdletBinding(DefaultParameterSetName = 'Install')]
param(
    # URL of the server.
    [Parameter(Mandatory = $true, ParameterSetName = 'Install')][ValidatePattern('^https?://[^\s"]+$')][string]$Api,
    # The database that the other program fills; the account of the task must be able to write it.
    [Parameter(Mandatory = $true, ParameterSetName = 'Install')][string]$Db,
    # Minutes between two runs.
    [Parameter(ParameterSetName = 'Install')][ValidateRange(1, 1440)][int]$Minutes = 5,
    # A folder for this task alone, with key.txt and exporter.log.
    [Parameter(ParameterSetName = 'Install')][string]$Data,
    # Ask for the server's key, although there is one.
    [Parameter(ParameterSetName = 'Install')][switch]$NewKey,
    # User: you, with the rights of a normal user. Service: LOCAL SERVICE, for accounts that no task may run as.
    [Parameter(ParameterSetName = 'Install')][ValidateSet('User', 'Service')][string]$RunAs = 'User',
    # Remove the task instead.
    [Parameter(Mandatory = $true, ParameterSetName = 'Uninstall')][switch]$Uninstall,
    # Name of the task.
    [string]$Name = 'Tickpipe exporter'
)

. (Join-Path $PSScriptRoot 'tickpipe.ps1')

Assert-Administrator
if ($Uninstall) {
    Remove-Task $Name
    exit 0
}

$program = Join-Path $TickpipeProgram 'env\Scripts\tickpipe.exe'
if (-not (Test-Path -LiteralPath $program -PathType Leaf)) {
    Stop-WithMessage "$program does not exist. Cure: run install.ps1 first."
}
$Db = Get-FullPath $Db
if (-not (Test-Path -LiteralPath $Db -PathType Leaf)) {
    Stop-WithMessage "$Db does not exist. Cure: name the database that the other program fills with -Db."
}
if (-not $Data) { $Data = "$TickpipeData exporter" }
$Data = Get-FullPath $Data
$keyFile = Join-Path $Data 'key.txt'
$log = Join-Path $Data 'exporter.log'

if ($RunAs -eq 'Service') {
    $account = $ServiceSid
    $principal = New-ScheduledTaskPrincipal -UserId $ServiceSid -LogonType ServiceAccount -RunLevel Limited
} else {
    $account = [Security.Principal.WindowsIdentity]::GetCurrent().User.Value
    $principal = New-ScheduledTaskPrincipal -UserId ([Security.Principal.WindowsIdentity]::GetCurrent().Name) -LogonType S4U -RunLevel Limited
}
$before = Get-ScheduledTask -TaskName $Name -ErrorAction SilentlyContinue
if ($before) { Stop-Task $before }
Protect-Folder $Data $account
Request-Key $keyFile $NewKey.IsPresent $account
$action = New-ProgramAction $program @('relay', 'export', '--db', $Db, '--api', $Api, '--all', '--key-file', $keyFile, '--log-file', $log)
# A run that takes longer than the pause goes on; the next waits for its turn.
Register-Task $Name $action @(New-EndlessTrigger $Minutes) $principal (New-TimeSpan -Hours 12) "Sends the ticks of $Db to $Api."
Start-ScheduledTask -TaskName $Name
Write-Output "The task '$Name' runs every $Minutes minutes. What it does is in $log; remove it with -Uninstall."
