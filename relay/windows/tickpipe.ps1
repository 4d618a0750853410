# What the scripts of this folder share. They dot-source it; it does nothing by itself.
# Windows PowerShell 5.1 and PowerShell 7.

# Where the database, the key and the logs are when nothing else is said.
$TickpipeData = Join-Path $env:ProgramData 'Tickpipe'

# Larger logs are put aside before the next run (bytes).
$MaxLogBytes = 5MB

function Stop-WithMessage {
    # One sentence and its cure instead of a stack trace.
    param([string]$Message, [int]$ExitCode = 2)
    [Console]::Error.WriteLine("Error: $Message")
    exit $ExitCode
}

function Find-Tickpipe {
    # The tickpipe.exe that was named, else the one of the environment these scripts were installed into, else the one on the PATH.
    param([string]$Named)
    if ($Named) {
        if (Test-Path -LiteralPath $Named -PathType Leaf) { return (Resolve-Path -LiteralPath $Named).Path }
        Stop-WithMessage "$Named does not exist. Cure: name tickpipe.exe with -Tickpipe, for example <environment>\Scripts\tickpipe.exe."
    }
    # <environment>\Lib\site-packages\relay\windows
    $beside = Join-Path $PSScriptRoot '..\..\..\..\Scripts\tickpipe.exe'
    if (Test-Path -LiteralPath $beside -PathType Leaf) { return (Resolve-Path -LiteralPath $beside).Path }
    if ($env:VIRTUAL_ENV) {
        $active = Join-Path $env:VIRTUAL_ENV 'Scripts\tickpipe.exe'
        if (Test-Path -LiteralPath $active -PathType Leaf) { return $active }
    }
    $onPath = Get-Command -Name 'tickpipe.exe' -CommandType Application -ErrorAction SilentlyContinue | Select-Object -First 1
    if ($onPath) { return $onPath.Path }
    Stop-WithMessage 'tickpipe.exe was not found. Cure: py -m venv FOLDER; FOLDER\Scripts\pip install "tickpipe[relay]"; then name FOLDER\Scripts\tickpipe.exe with -Tickpipe.'
}

function Get-FullPath {
    # A task does not run in this window's folder.
    param([string]$Path)
    return $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Path)
}

function Read-Secret {
    # The first line of a file, else the environment variable. Never an argument: those are seen by everybody on the PC.
    param([string]$File, [string]$Variable, [string]$What)
    if (Test-Path -LiteralPath $File -PathType Leaf) {
        $line = Get-Content -LiteralPath $File -TotalCount 1 -ErrorAction SilentlyContinue
        if ($line -and $line.Trim()) { return $line.Trim() }
        Stop-WithMessage "$File is empty or cannot be read by $env:USERNAME. Cure: write $What into its first line."
    }
    $value = [Environment]::GetEnvironmentVariable($Variable)
    if ($value) { return $value }
    Stop-WithMessage "$What is not known. Cure: write it into the first line of $File, or set the variable $Variable."
}

function Assert-Administrator {
    $identity = [Security.Principal.WindowsIdentity]::GetCurrent()
    $principal = New-Object Security.Principal.WindowsPrincipal($identity)
    if (-not $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)) {
        Stop-WithMessage 'administrator rights are needed to run a task while nobody is logged on. Cure: right-click PowerShell, "Run as administrator", and call the script again.'
    }
}

function Initialize-Folder {
    param([string]$Folder)
    if (-not $Folder) { return }
    try {
        New-Item -ItemType Directory -Path $Folder -Force -ErrorAction Stop | Out-Null
    } catch {
        Stop-WithMessage "$Folder cannot be created: $($_.Exception.Message) Cure: name another folder."
    }
}

function Protect-Data {
    # The data folder is for who runs the task; the key is for nobody else. Groups by number, as their names are translated.
    param([string]$KeyFile)
    $user = [Security.Principal.WindowsIdentity]::GetCurrent().User.Value
    Initialize-Folder $TickpipeData
    & icacls.exe $TickpipeData /grant "*${user}:(OI)(CI)M" /Q | Out-Null
    if ($LASTEXITCODE -ne 0) { Stop-WithMessage "the rights of $TickpipeData cannot be set. Cure: who owns it?" 1 }
    if (-not (Test-Path -LiteralPath $KeyFile -PathType Leaf)) { return }
    & icacls.exe $KeyFile /inheritance:r /grant:r "*${user}:R" '*S-1-5-18:R' '*S-1-5-32-544:F' /Q | Out-Null
    if ($LASTEXITCODE -ne 0) { Stop-WithMessage "the rights of $KeyFile cannot be set. Cure: who owns it?" 1 }
}

function Invoke-Logged {
    # Runs a program, appends what it says to a log with the time, and returns its exit code.
    param([string]$Program, [string[]]$Arguments, [string]$Log)
    Initialize-Folder (Split-Path -Parent $Log)
    if ((Test-Path -LiteralPath $Log) -and (Get-Item -LiteralPath $Log).Length -gt $MaxLogBytes) {
        Move-Item -LiteralPath $Log -Destination "$Log.1" -Force -ErrorAction SilentlyContinue
    }
    $env:PYTHONUTF8 = '1'
    $env:NO_COLOR = '1'
    # Windows PowerShell makes an error of each line on stderr, where the log lines are.
    $ErrorActionPreference = 'Continue'
    & $Program @Arguments 2>&1 | ForEach-Object {
        Add-Content -LiteralPath $Log -Value ('{0:yyyy-MM-ddTHH:mm:ssK} {1}' -f (Get-Date), "$_") -Encoding UTF8
    }
    return $LASTEXITCODE
}

function New-TaskPrincipal {
    # User: the rights of whoever installs it, without a stored password (S4U); System: for accounts that do not allow that.
    param([string]$RunAs)
    if ($RunAs -eq 'System') {
        return New-ScheduledTaskPrincipal -UserId 'SYSTEM' -LogonType ServiceAccount -RunLevel Limited
    }
    $user = [Security.Principal.WindowsIdentity]::GetCurrent().Name
    return New-ScheduledTaskPrincipal -UserId $user -LogonType S4U -RunLevel Limited
}

function New-ScriptAction {
    # Runs a script of this folder without a window. Arguments are quoted as one command line.
    param([string]$Script, [string[]]$Arguments)
    $quoted = $Arguments | ForEach-Object {
        if ($_ -match '^-[A-Za-z]+$') { $_ } else { '"' + $_ + '"' }
    }
    $line = '-NoProfile -NonInteractive -ExecutionPolicy Bypass -WindowStyle Hidden -File "{0}" {1}' -f (Join-Path $PSScriptRoot $Script), ($quoted -join ' ')
    $shell = Join-Path $env:SystemRoot 'System32\WindowsPowerShell\v1.0\powershell.exe'
    return New-ScheduledTaskAction -Execute $shell -Argument $line
}

function New-EndlessTrigger {
    # Every few minutes for ever: an empty duration has no end.
    param([int]$Minutes)
    $trigger = New-ScheduledTaskTrigger -Once -At (Get-Date).AddMinutes(1) -RepetitionInterval (New-TimeSpan -Minutes $Minutes)
    if ($trigger.Repetition.Duration) { $trigger.Repetition.Duration = $null }
    return $trigger
}

function Register-Task {
    param([string]$Name, $Action, $Triggers, $Settings, [string]$RunAs, [string]$Description)
    try {
        Register-ScheduledTask -TaskName $Name -Action $Action -Trigger $Triggers -Settings $Settings -Principal (New-TaskPrincipal $RunAs) -Description $Description -Force -ErrorAction Stop | Out-Null
    } catch {
        Stop-WithMessage "the task '$Name' could not be registered: $($_.Exception.Message) Cure: if it is about the account, call the script again with -RunAs System." 1
    }
}

function Remove-Task {
    param([string]$Name)
    $task = Get-ScheduledTask -TaskName $Name -ErrorAction SilentlyContinue
    if (-not $task) {
        Write-Output "There is no task '$Name'."
        return
    }
    Stop-ScheduledTask -TaskName $Name -ErrorAction SilentlyContinue
    Unregister-ScheduledTask -TaskName $Name -Confirm:$false
    Write-Output "The task '$Name' is removed. Database, key and logs are left as they are."
}

# What the commands of an older exporter, local API or edge relay are called.
$OlderCommands = '(?i)run-exporter|run-relay|export(er)?[-_ ]?ticks|exporter\.py|edge[-_ ]?relay|api[-_ ]?lite|forwarder\.py'

function Write-OlderTask {
    # Names scheduled tasks that would send the same ticks beside these scripts; nothing is changed.
    $tasks = Get-ScheduledTask -ErrorAction SilentlyContinue | Where-Object { "$($_.State)" -ne 'Disabled' }
    foreach ($task in $tasks) {
        $commands = @($task.Actions | ForEach-Object { "$($_.Execute) $($_.Arguments)" }) -join '; '
        if ($commands -match $OlderCommands -and -not $commands.Contains($PSScriptRoot)) {
            Write-Output "The task '$($task.TaskPath)$($task.TaskName)' runs an older program: $commands. Ticks sent by both count once; disable it when it has nothing left to send."
        }
    }
}
